//! parfait-internet
