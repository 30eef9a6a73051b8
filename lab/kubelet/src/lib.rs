//! parfait-lab-kubelet
