//! parfait-linux
