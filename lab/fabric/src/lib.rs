//! parfait-lab-fabric
