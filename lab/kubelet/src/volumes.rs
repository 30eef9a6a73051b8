//! A pod's volumes: what they hold, and where a container sees them.
//!
//! All of a pod's volumes are on one tmpfs of its own, so they can neither reach nor fill the host's disks; an `emptyDir`
//! with a `sizeLimit` is a tmpfs of that size. What each kind of volume is in the lab:
//!
//! | volume | in the lab |
//! |---|---|
//! | `emptyDir` | an empty directory |
//! | `configMap`, `secret`, `downwardAPI`, `projected` | files, written once when the pod starts; no tokens |
//! | `persistentVolumeClaim`, `ephemeral` | an empty directory, and a Warning that nothing persists |
//! | `hostPath` | refused: a pod of the lab cannot reach the host |
//! | anything else | refused: the lab has no such storage |

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume,
};

use crate::container::path::open_below;
use crate::container::{Bind, StepError, make_tmpfs};
use crate::env::expand;
use crate::fields::{self, Addresses, Machine};
use crate::quantity;
use crate::sources::{Entries, Source, Sources};

/// What a volume holds at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Empty {
        size: Option<u64>,
        /// What the user should know.
        warning: Option<String>,
    },
    Files(Vec<VolumeFile>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    pub path: PathBuf,
    pub mode: u32,
    pub data: Vec<u8>,
}

/// Why a volume cannot be had. The kubelet's event is `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume:?}: {message}")]
    Refused { volume: String, message: String },
    #[error("volume {volume:?}: {source}")]
    Step {
        volume: String,
        #[source]
        source: StepError,
    },
}

/// What the contents of volumes are made from.
#[derive(Debug, Clone, Copy)]
pub struct Makings<'a> {
    pub pod: &'a Pod,
    pub addresses: &'a Addresses,
    pub machine: Machine,
    pub sources: &'a Sources,
}

/// Decides what a volume holds.
pub fn content(volume: &Volume, makings: &Makings<'_>) -> Result<Content, VolumeError> {
    let refuse = |message: String| VolumeError::Refused {
        volume: volume.name.clone(),
        message,
    };
    if let Some(v) = &volume.empty_dir {
        return Ok(Content::Empty {
            size: v
                .size_limit
                .as_ref()
                .and_then(|q| quantity::whole(&q.0))
                .filter(|n| *n > 0),
            warning: None,
        });
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return Ok(Content::Empty {
            size: None,
            warning: Some(format!(
                "volume {:?} is kept in memory and is gone with the pod: the lab has no persistent storage",
                volume.name
            )),
        });
    }
    let mut files = Files::default();
    if let Some(v) = &volume.config_map {
        let source = Source::ConfigMap(v.name.clone());
        let mode = v.default_mode;
        files
            .source(makings, &source, v.optional, v.items.as_deref(), mode)
            .map_err(refuse)?;
    } else if let Some(v) = &volume.secret {
        let source = Source::Secret(v.secret_name.clone().unwrap_or_default());
        let mode = v.default_mode;
        files
            .source(makings, &source, v.optional, v.items.as_deref(), mode)
            .map_err(refuse)?;
    } else if let Some(v) = &volume.downward_api {
        let items = v.items.as_deref().unwrap_or_default();
        files
            .downward(makings, items, v.default_mode)
            .map_err(refuse)?;
    } else if let Some(v) = &volume.projected {
        files.projected(makings, v).map_err(refuse)?;
    } else if let Some(v) = &volume.host_path {
        return Err(refuse(format!(
            "hostPath {:?} is refused: a pod of the lab cannot reach the host. Use emptyDir, configMap or secret",
            v.path
        )));
    } else {
        return Err(refuse(
            "the lab has no such storage. Use emptyDir, configMap, secret, downwardAPI or projected".to_owned(),
        ));
    }
    Ok(Content::Files(files.list))
}

#[derive(Default)]
struct Files {
    list: Vec<VolumeFile>,
}

impl Files {
    fn add(&mut self, path: &str, mode: Option<i32>, data: Vec<u8>) -> Result<(), String> {
        let path = Path::new(path);
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(format!("path {path:?} must be relative and without '..'"));
        }
        let mode = mode.map_or(0o644, |m| m.unsigned_abs() & 0o777);
        self.list.retain(|f| f.path != path);
        self.list.push(VolumeFile {
            path: path.to_owned(),
            mode,
            data,
        });
        Ok(())
    }

    fn source(
        &mut self,
        makings: &Makings<'_>,
        source: &Source,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        let empty = Entries::new();
        let entries = match makings.sources.get(source) {
            Some(entries) => entries,
            None if optional == Some(true) => &empty,
            None => {
                return Err(format!(
                    "{source} not found: create it in the pod's namespace"
                ));
            }
        };
        let Some(items) = items else {
            return entries
                .iter()
                .try_for_each(|(key, data)| self.add(key, mode, data.clone()));
        };
        for item in items {
            match entries.get(&item.key) {
                Some(data) => self.add(&item.path, item.mode.or(mode), data.clone())?,
                None if optional == Some(true) => {}
                None => return Err(format!("{source} has no key {:?}", item.key)),
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        makings: &Makings<'_>,
        items: &[DownwardAPIVolumeFile],
        mode: Option<i32>,
    ) -> Result<(), String> {
        for item in items {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(r), _) => fields::field(makings.pod, makings.addresses, &r.field_path)?,
                (None, Some(r)) => {
                    let all = makings.pod.spec.iter().flat_map(|s| &s.containers);
                    let name = r.container_name.as_deref().unwrap_or_default();
                    let container = all.into_iter().find(|c| c.name == name);
                    let container =
                        container.ok_or_else(|| format!("no container named {name:?}"))?;
                    fields::resource(container, makings.machine, r)?
                }
                (None, None) => return Err(format!("item {:?} refers to nothing", item.path)),
            };
            self.add(&item.path, item.mode.or(mode), text.into_bytes())?;
        }
        Ok(())
    }

    fn projected(
        &mut self,
        makings: &Makings<'_>,
        v: &ProjectedVolumeSource,
    ) -> Result<(), String> {
        let mode = v.default_mode;
        for part in v.sources.iter().flatten() {
            if let Some(p) = &part.config_map {
                let source = Source::ConfigMap(p.name.clone());
                self.source(makings, &source, p.optional, p.items.as_deref(), mode)?;
            }
            if let Some(p) = &part.secret {
                let source = Source::Secret(p.name.clone());
                self.source(makings, &source, p.optional, p.items.as_deref(), mode)?;
            }
            if let Some(p) = &part.downward_api {
                self.downward(makings, p.items.as_deref().unwrap_or_default(), mode)?;
            }
            // Tokens and trust bundles are left out: the lab's API server issues none.
        }
        Ok(())
    }
}

/// Makes the pod's tmpfs at `dir` and every volume on it. Blocking.
pub fn make(
    dir: &Path,
    bytes: u64,
    contents: &BTreeMap<String, Content>,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    let at = |volume: &str| {
        let volume = volume.to_owned();
        move |source| VolumeError::Step { volume, source }
    };
    fs::create_dir_all(dir)
        .map_err(StepError::at(format!("make {}", dir.display())))
        .and_then(|()| make_tmpfs(dir, bytes, 0o755))
        .map_err(at("*"))?;
    for (name, content) in contents {
        make_one(&dir.join(name), content, group).map_err(at(name))?;
    }
    Ok(())
}

fn make_one(dir: &Path, content: &Content, group: Option<u32>) -> Result<(), StepError> {
    let step = || StepError::at(format!("make {}", dir.display()));
    fs::create_dir(dir).map_err(step())?;
    match content {
        Content::Empty { size, .. } => {
            if let Some(size) = size {
                make_tmpfs(dir, *size, 0o777)?;
            }
            let mode = if group.is_some() { 0o2777 } else { 0o777 };
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(step())?;
        }
        Content::Files(files) => {
            for file in files {
                let path = dir.join(&file.path);
                let parent = path.parent().unwrap_or(dir);
                fs::create_dir_all(parent).map_err(step())?;
                fs::write(&path, &file.data).map_err(step())?;
                // With an fsGroup its members may read what the owner may.
                let mode = if group.is_some() {
                    file.mode | (file.mode >> 3 & 0o070)
                } else {
                    file.mode
                };
                std::os::unix::fs::lchown(&path, None, group).map_err(step())?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(step())?;
            }
        }
    }
    std::os::unix::fs::lchown(dir, None, group).map_err(step())
}

/// The binds of one container. A `subPath` is bound to a place of the kubelet's in `subpaths` first. Blocking.
pub fn binds(
    pod: &Pod,
    container: &Container,
    volumes: &Path,
    subpaths: &Path,
    env: &[(String, String)],
) -> Result<Vec<Bind>, VolumeError> {
    let mut binds = Vec::new();
    let known = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let known: BTreeMap<&str, &Volume> = known.map(|v| (v.name.as_str(), v)).collect();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let refuse = |message: String| VolumeError::Refused {
            volume: mount.name.clone(),
            message,
        };
        let Some(volume) = known.get(mount.name.as_str()) else {
            return Err(refuse("the pod has no such volume".to_owned()));
        };
        let find = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(text)) if !text.is_empty() => Some(expand(text, find)),
            _ => None,
        };
        let mut source = volumes.join(&mount.name);
        if let Some(sub) = sub {
            let place = subpaths.join(format!("{}-{i}", container.name));
            bind_subpath(&source, &sub, &place).map_err(|source| VolumeError::Step {
                volume: mount.name.clone(),
                source,
            })?;
            source = place;
        }
        let files = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        binds.push(Bind {
            source,
            target: mount.mount_path.clone(),
            read_only: files || mount.read_only == Some(true),
        });
    }
    Ok(binds)
}

/// Binds `volume/sub` to `place`. What is in the volume is the containers' doing, so what is bound is what was opened
/// below the volume, following no links.
fn bind_subpath(volume: &Path, sub: &str, place: &Path) -> Result<(), StepError> {
    let step = || format!("subPath {sub:?}");
    let plain = Path::new(sub)
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(StepError::new(
            step(),
            "it must be relative and without '..'",
        ));
    }
    let existed = volume.join(sub).symlink_metadata().is_ok();
    let opened = open_below(volume, Path::new(sub), true).map_err(|e| StepError {
        step: format!("{}: {}", step(), e.step),
        source: e.source,
    })?;
    if !existed {
        // Of a new directory every user of the pod may make use.
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(opened.path(), open).map_err(StepError::at(step()))?;
    }
    let is_dir = fs::metadata(opened.path())
        .map_err(StepError::at(step()))?
        .is_dir();
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(StepError::at(step()))?;
    }
    if place.exists() {
        let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(place);
        let _ = fs::remove_file(place);
    }
    if is_dir {
        fs::create_dir(place).map_err(StepError::at(step()))?;
    } else {
        fs::write(place, "").map_err(StepError::at(step()))?;
    }
    crate::container::bind_file(&opened.path(), place)
}

/// Unmounts and removes everything below `dir`, the pod's own directory, without following links or entering mounts that
/// would not go away.
pub fn remove(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(|p| PathBuf::from(p.replace("\\040", " ")))
        .filter(|p| p.starts_with(dir))
        .collect();
    points.reverse();
    let mut clean = true;
    for point in points {
        let result = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        clean &= result.is_ok();
    }
    if clean {
        let _ = fs::remove_dir_all(dir);
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
