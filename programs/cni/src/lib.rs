//! parfait-cni
