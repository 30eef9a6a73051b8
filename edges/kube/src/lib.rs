//! parfait-kube
