//! parfait-link
