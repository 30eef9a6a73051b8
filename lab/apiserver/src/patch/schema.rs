//! How lists merge in a strategic-merge patch: the `patchMergeKey` and `patchStrategy` tags of the Go types.
//!
//! Only fields with a strategy are listed; every other list is replaced whole (`atomic`), every other object
//! merged field by field. Source: the struct tags in `k8s.io/api/{core,apps,batch}/v1/types.go`.

/// The fields of an object that merge in a way of their own.
pub struct Schema {
    fields: &'static [(&'static str, Field)],
}

/// How one field merges.
#[derive(Clone, Copy)]
pub enum Field {
    /// An object whose own fields have strategies.
    Object(&'static Schema),
    /// A list of objects, matched by the value of a key.
    Keyed(&'static str, &'static Schema),
    /// A list of scalars that is a set.
    Set,
}

impl Schema {
    /// The strategy of a field, if it has one.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, f)| *f)
    }
}

/// No strategies at all.
pub static PLAIN: Schema = Schema { fields: &[] };

/// Any object: its metadata has sets of its own.
pub static OBJECT: Schema = Schema {
    fields: &[META_FIELD],
};

const META_FIELD: (&str, Field) = ("metadata", Field::Object(&METADATA));
const STATUS_FIELD: (&str, Field) = ("status", Field::Object(&STATUS));

static METADATA: Schema = Schema {
    fields: &[
        ("finalizers", Field::Set),
        ("ownerReferences", Field::Keyed("uid", &PLAIN)),
    ],
};

static STATUS: Schema = Schema {
    fields: &[("conditions", Field::Keyed("type", &PLAIN))],
};

/// An object with conditions.
pub static CONDITIONED: Schema = Schema {
    fields: &[META_FIELD, STATUS_FIELD],
};

static VOLUME_MOUNTS: Field = Field::Keyed("mountPath", &PLAIN);

static CONTAINER: Schema = Schema {
    fields: &[
        ("env", Field::Keyed("name", &PLAIN)),
        ("ports", Field::Keyed("containerPort", &PLAIN)),
        ("volumeMounts", VOLUME_MOUNTS),
        ("volumeDevices", Field::Keyed("devicePath", &PLAIN)),
    ],
};

static POD_SPEC: Schema = Schema {
    fields: &[
        ("containers", Field::Keyed("name", &CONTAINER)),
        ("initContainers", Field::Keyed("name", &CONTAINER)),
        ("ephemeralContainers", Field::Keyed("name", &CONTAINER)),
        ("volumes", Field::Keyed("name", &PLAIN)),
        ("imagePullSecrets", Field::Keyed("name", &PLAIN)),
        ("hostAliases", Field::Keyed("ip", &PLAIN)),
        (
            "topologySpreadConstraints",
            Field::Keyed("topologyKey", &PLAIN),
        ),
        ("schedulingGates", Field::Keyed("name", &PLAIN)),
        ("resourceClaims", Field::Keyed("name", &PLAIN)),
    ],
};

/// Pod.
pub static POD: Schema = Schema {
    fields: &[
        META_FIELD,
        ("spec", Field::Object(&POD_SPEC)),
        ("status", Field::Object(&POD_STATUS)),
    ],
};

static POD_STATUS: Schema = Schema {
    fields: &[
        ("conditions", Field::Keyed("type", &PLAIN)),
        ("podIPs", Field::Keyed("ip", &PLAIN)),
        ("hostIPs", Field::Keyed("ip", &PLAIN)),
    ],
};

static POD_TEMPLATE: Schema = Schema {
    fields: &[META_FIELD, ("spec", Field::Object(&POD_SPEC))],
};

/// PodTemplate.
pub static POD_TEMPLATE_OBJECT: Schema = Schema {
    fields: &[META_FIELD, ("template", Field::Object(&POD_TEMPLATE))],
};

static WORKLOAD_SPEC: Schema = Schema {
    fields: &[("template", Field::Object(&POD_TEMPLATE))],
};

/// ReplicaSet, StatefulSet, DaemonSet, ReplicationController, Job: a pod template and conditions.
pub static WORKLOAD: Schema = Schema {
    fields: &[
        META_FIELD,
        ("spec", Field::Object(&WORKLOAD_SPEC)),
        STATUS_FIELD,
    ],
};

/// Deployment. (`strategy` is `retainKeys`, which needs nothing but the directive in the patch.)
pub static DEPLOYMENT: Schema = Schema {
    fields: &[
        META_FIELD,
        ("spec", Field::Object(&WORKLOAD_SPEC)),
        STATUS_FIELD,
    ],
};

static CRON_JOB_SPEC: Schema = Schema {
    fields: &[("jobTemplate", Field::Object(&JOB_TEMPLATE))],
};
static JOB_TEMPLATE: Schema = Schema {
    fields: &[META_FIELD, ("spec", Field::Object(&WORKLOAD_SPEC))],
};

/// CronJob.
pub static CRON_JOB: Schema = Schema {
    fields: &[META_FIELD, ("spec", Field::Object(&CRON_JOB_SPEC))],
};

static SERVICE_SPEC: Schema = Schema {
    fields: &[("ports", Field::Keyed("port", &PLAIN))],
};

/// Service.
pub static SERVICE: Schema = Schema {
    fields: &[
        META_FIELD,
        ("spec", Field::Object(&SERVICE_SPEC)),
        STATUS_FIELD,
    ],
};

static NODE_SPEC: Schema = Schema {
    fields: &[("podCIDRs", Field::Set)],
};
static NODE_STATUS: Schema = Schema {
    fields: &[
        ("conditions", Field::Keyed("type", &PLAIN)),
        ("addresses", Field::Keyed("type", &PLAIN)),
    ],
};

/// Node.
pub static NODE: Schema = Schema {
    fields: &[
        META_FIELD,
        ("spec", Field::Object(&NODE_SPEC)),
        ("status", Field::Object(&NODE_STATUS)),
    ],
};

/// ServiceAccount.
pub static SERVICE_ACCOUNT: Schema = Schema {
    fields: &[META_FIELD, ("secrets", Field::Keyed("name", &PLAIN))],
};
