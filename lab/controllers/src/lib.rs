//! parfait-lab-controllers
