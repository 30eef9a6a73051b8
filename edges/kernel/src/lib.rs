//! parfait-kernel
