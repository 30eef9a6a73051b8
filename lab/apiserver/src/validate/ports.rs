//! Ports and protocols, as Services, Pods, probes and policies share them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::port_name_complaint;
use crate::status::FieldErrors;

const RANGE: &str = "must be between 1 and 65535, inclusive";

/// A port number.
pub fn number(port: i32, field: &str, errors: &mut FieldErrors) {
    if !(1..=65535).contains(&port) {
        errors.invalid(field, port, RANGE);
    }
}

/// A port by number or by name.
pub fn number_or_name(port: &IntOrString, field: &str, errors: &mut FieldErrors) {
    match port {
        IntOrString::Int(port) => number(*port, field, errors),
        IntOrString::String(name) => self::name(name, field, errors),
    }
}

/// A port's name.
pub fn name(name: &str, field: &str, errors: &mut FieldErrors) {
    if let Some(complaint) = port_name_complaint(name) {
        errors.invalid(field, name, complaint);
    }
}

/// A transport protocol.
pub fn protocol(protocol: &str, field: &str, errors: &mut FieldErrors) {
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        errors.not_supported(field, protocol, &["SCTP", "TCP", "UDP"]);
    }
}
