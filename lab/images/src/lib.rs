//! parfait-lab-images
