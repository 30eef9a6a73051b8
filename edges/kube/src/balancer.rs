//! Load balancers' addresses, written into Services' status, and Events about them.
//!
//! A decision was made on what a watch told some time ago. So the Service is read again, and left if it is not what was
//! decided on: the change is on its way, and with it a new decision. Between reading and writing, the resource version
//! guards.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use parfait_cluster::{LoadBalancer, Object, ObjectName, Parsed, Told, parse};

use crate::Error;

/// Writes load balancers' addresses.
pub struct Balancers {
    client: Client,
    events: Recorder,
}

impl Balancers {
    /// A writer whose Events say that they come from this node.
    #[must_use]
    pub fn new(client: &Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: "parfait-load-balancer".to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            client: client.clone(),
            events: Recorder::new(client.clone(), reporter),
        }
    }

    /// Makes a Service's status say this, if the Service is still as it was when that was decided. Whether it was.
    ///
    /// # Errors
    /// If the API server cannot be reached or refuses.
    pub async fn write(
        &self,
        name: &ObjectName,
        before: &LoadBalancer,
        addresses: &[IpAddr],
        told: Option<&Told>,
    ) -> Result<bool, Error> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        let operation = format!("write the addresses of Service {name}");
        let read = api.get_opt(&name.name).await;
        let Some(mut service) = read.map_err(Error::request(&operation))? else {
            return Ok(false);
        };
        if balancer(&service).as_ref() != Some(before) {
            return Ok(false);
        }
        set(&mut service, addresses, told);
        let written = api
            .replace_status(&name.name, &PostParams::default(), &service)
            .await;
        match written {
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => return Ok(false),
            written => written.map(drop).map_err(Error::request(&operation))?,
        }
        self.tell(&service, before, addresses, told).await;
        Ok(true)
    }

    /// An Event that is lost is only logged: the condition says the same.
    async fn tell(
        &self,
        service: &Service,
        before: &LoadBalancer,
        addresses: &[IpAddr],
        told: Option<&Told>,
    ) {
        let list = |addresses: &[IpAddr]| {
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        let lost = before
            .held
            .iter()
            .any(|address| !addresses.contains(address));
        let instead = match lost {
            true => format!(" (instead of {})", list(&before.held)),
            false => String::new(),
        };
        let (kind, reason, message) = match told {
            Some(told) if told.satisfied => (
                EventType::Normal,
                told.reason.as_str(),
                told.message.clone(),
            ),
            Some(told) => (
                EventType::Warning,
                told.reason.as_str(),
                told.message.clone(),
            ),
            None if before.held.is_empty() => return,
            None => (
                EventType::Normal,
                "Released",
                format!("{} is free again", list(&before.held)),
            ),
        };
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(message + if told.is_some() { &instead } else { "" }),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &service.object_ref(&())).await {
            tracing::debug!("an Event is lost: {error}");
        }
    }

    /// Says on a Service that a node answers for one of its addresses now.
    pub async fn announce(&self, name: &ObjectName, message: String) {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        let Ok(service) = api.get(&name.name).await else {
            return;
        };
        let event = Event {
            type_: EventType::Normal,
            reason: "Announced".to_owned(),
            note: Some(message),
            action: "Announce".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &service.object_ref(&())).await {
            tracing::debug!("an Event is lost: {error}");
        }
    }
}

/// What a Service has to do with load balancers, as the snapshot has it.
fn balancer(service: &Service) -> Option<LoadBalancer> {
    let (object, _) = parse(Parsed::Service(service), &crate::config_yaml);
    match object {
        Some(Object::Service(service)) => service.outside.load_balancer.map(|boxed| *boxed),
        _ => None,
    }
}

fn set(service: &mut Service, addresses: &[IpAddr], told: Option<&Told>) {
    let generation = service.metadata.generation;
    let status = service.status.get_or_insert_default();
    let point = |address: &IpAddr| LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let points: Vec<_> = addresses.iter().map(point).collect();
    status.load_balancer = Some(LoadBalancerStatus {
        ingress: (!points.is_empty()).then_some(points),
    });
    let conditions = status.conditions.get_or_insert_default();
    let word = told.map(|told| if told.satisfied { "True" } else { "False" });
    let own = |condition: &Condition| condition.type_ == LoadBalancer::CONDITION;
    let before = conditions.iter().find(|condition| own(condition));
    let since = before.filter(|before| Some(before.status.as_str()) == word);
    let since = since.map(|before| before.last_transition_time.clone());
    conditions.retain(|condition| !own(condition));
    if let (Some(told), Some(word)) = (told, word) {
        conditions.push(Condition {
            type_: LoadBalancer::CONDITION.to_owned(),
            status: word.to_owned(),
            reason: told.reason.clone(),
            message: told.message.clone(),
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_what_is_read() {
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.20"},
            "status": {"conditions": [{
                "type": "example.org/Other", "status": "True", "reason": "Fine", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        let mut service: Service = serde_json::from_value(service).unwrap();
        let told = Told {
            satisfied: true,
            reason: "Allocated".to_owned(),
            message: "192.0.2.1 from LoadBalancerPool office".to_owned(),
        };
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        set(&mut service, &[address], Some(&told));
        let read = balancer(&service).expect("it is one");
        assert_eq!((read.held, read.told), (vec![address], Some(told.clone())));
        assert!(!read.elsewhere);
        let conditions = |service: &Service| {
            let status = service.status.clone().unwrap_or_default();
            status.conditions.unwrap_or_default()
        };
        let first = conditions(&service);
        assert_eq!(first.len(), 2, "others' conditions stay");
        set(&mut service, &[address], Some(&told));
        assert_eq!(
            conditions(&service),
            first,
            "nothing has changed, not even the time"
        );
        set(&mut service, &[], None);
        let read = balancer(&service).expect("its type is still so");
        assert_eq!((read.held, read.told), (Vec::new(), None));
    }
}
