//! parfait-lab-apiserver
