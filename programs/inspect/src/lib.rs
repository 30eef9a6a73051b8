//! parfait-inspect
