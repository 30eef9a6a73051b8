//! parfait-cluster
