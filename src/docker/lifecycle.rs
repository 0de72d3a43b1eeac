//! Containers made, started, ended, removed and looked up.

use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
};
use tracing::debug;

use super::container::{from_inspection, from_summary};
use super::engine::missing_is_none;
use super::spec::{GpuAccess, body};
use super::{Container, ContainerSpec, ContainerSummary, Docker, DockerError, names};
use crate::ids::ContainerId;

/// How often a removal that somebody else began is looked at.
const REMOVAL_POLL: Duration = Duration::from_millis(50);

/// How often a container is started while its ports are taken. The engine itself tries ten ports each time.
const PORT_ATTEMPTS: u32 = 4;

/// Which containers a list shall hold; all conditions must be met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Also those that do not run.
    pub all: bool,
    /// Labels with their values.
    pub labels: Vec<(String, String)>,
    /// A text that the name contains.
    pub name: Option<String>,
}

impl Docker {
    /// Creates a container; it does not run yet.
    ///
    /// After [`DockerError::Deadline`] it may still appear: look for it by its name.
    pub async fn create(&self, name: &str, spec: &ContainerSpec) -> Result<ContainerId, DockerError> {
        let step = names::checked_name(format!("create container {name}"), name)?;
        let step = names::checked_image(step, &spec.image)?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let gpus = match spec.gpu_device_ids.as_slice() {
            [] => GpuAccess::Nvidia { has_runtime: false },
            // Asked anew for each: the engine may have been set up otherwise since.
            _ => self.gpu_access().await?,
        };
        let body = body(spec, &gpus);
        let answer = self
            .connection
            .call(step, self.deadlines.create, |engine| {
                let (options, body) = (options.clone(), body.clone());
                async move { engine.create_container(Some(options), body).await }
            })
            .await?;
        for warning in answer.warnings {
            debug!(container = name, %warning, "Docker warned about a new container");
        }
        Ok(ContainerId::new(answer.id))
    }

    /// Starts a container; nothing happens if it runs. Where another process took a port that the engine had just
    /// picked, the engine is asked again, and picks others.
    pub async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        for _ in 1..PORT_ATTEMPTS {
            match self.start_once(id).await {
                Err(error @ DockerError::PortTaken { .. }) => debug!(%error, "starting with other ports"),
                started => return started,
            }
        }
        self.start_once(id).await
    }

    async fn start_once(&self, id: &ContainerId) -> Result<(), DockerError> {
        let step = names::checked_name(format!("start container {}", id.short()), id.as_str())?;
        self.connection
            .call(step, self.deadlines.create, |engine| async move {
                engine.start_container(id.as_str(), None::<StartContainerOptions>).await
            })
            .await
    }

    /// Gives a container another name.
    pub async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), DockerError> {
        let step = names::checked_name(format!("rename container {}", id.short()), id.as_str())?;
        let step = names::checked_name(step, name)?;
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.connection
            .call(step, self.deadlines.quick, |engine| {
                let options = options.clone();
                async move { engine.rename_container(id.as_str(), options).await }
            })
            .await
    }

    /// Removes a container with its anonymous volumes, killing it if it runs. One that is gone is fine, and one
    /// that somebody else is removing is waited for. Takes a name as well, wrapped as an id.
    pub async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        let step = names::checked_name(format!("remove container {}", id.short()), id.as_str())?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.connection
            .call(step, self.deadlines.remove, |engine| {
                let options = options.clone();
                async move {
                    match engine.remove_container(id.as_str(), Some(options)).await {
                        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                        Err(EngineError::DockerResponseServerError { status_code: 409, message })
                            if message.contains("already in progress") =>
                        {
                            until_removed(&engine, id).await
                        }
                        other => other,
                    }
                }
            })
            .await
    }

    /// Looks at one container, by id or name; `None` if there is none.
    pub async fn inspect(&self, id_or_name: &str) -> Result<Option<Container>, DockerError> {
        self.inspect_within(id_or_name, self.deadlines.quick).await
    }

    /// The same with a time limit of the caller's own.
    pub(super) async fn inspect_within(
        &self,
        id_or_name: &str,
        limit: Duration,
    ) -> Result<Option<Container>, DockerError> {
        let step = names::checked_name(format!("inspect container {id_or_name}"), id_or_name)?;
        let answer = self
            .connection
            .call(step, limit, |engine| async move {
                let inspected = engine.inspect_container(id_or_name, None::<InspectContainerOptions>);
                missing_is_none(inspected.await)
            })
            .await?;
        Ok(answer.and_then(from_inspection))
    }

    /// Lists containers.
    pub async fn list(&self, filter: ListFilter) -> Result<Vec<ContainerSummary>, DockerError> {
        let mut filters = std::collections::HashMap::new();
        if !filter.labels.is_empty() {
            let labels = filter.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            filters.insert("label".to_owned(), labels);
        }
        if let Some(name) = &filter.name {
            // Docker reads it as a regular expression, in which a name's dots would match anything.
            filters.insert("name".to_owned(), vec![name.replace('.', "\\.")]);
        }
        let options = ListContainersOptionsBuilder::new().all(filter.all).filters(&filters).build();
        let answer = self
            .connection
            .call("list containers".to_owned(), self.deadlines.list, |engine| {
                let options = options.clone();
                async move { engine.list_containers(Some(options)).await }
            })
            .await?;
        Ok(answer.into_iter().filter_map(from_summary).collect())
    }
}

/// Waits for the end of a removal that is going on; the caller's deadline bounds it.
async fn until_removed(engine: &bollard::Docker, id: &ContainerId) -> Result<(), EngineError> {
    loop {
        let inspected = engine.inspect_container(id.as_str(), None::<InspectContainerOptions>);
        if missing_is_none(inspected.await)?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(REMOVAL_POLL).await;
    }
}
