//! parfait-serve
