//! `must-gather`: writes what a bug report needs into a folder, in the layout of `oc adm must-gather`.
//!
//! ```text
//! contents [pure] ─► lists, logs, pod_rules [I/O: reads] ─► reduce [pure] ─► folder [I/O: writes, bounded]
//! ```
//!
//! It never reads a Secret or a ConfigMap. Pods of other namespaces are reduced to what Services depend on; values of environment
//! variables and annotations are removed unless they are known. network-attachment-definitions are whole.

mod collect;
mod contents;
mod folder;
mod lists;
mod logs;
mod pod_rules;
mod reduce;

pub use collect::gather;
pub use folder::Folder;
pub use logs::Options;

use crate::facts::ReadError;
use serde::Serialize;
use std::path::PathBuf;

/// Result of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gathered {
    /// The folder.
    pub folder: PathBuf,
    /// Number of files.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// What is missing, a line each: rights that the user lacks, files beyond the size.
    pub missing: Vec<String>,
}

/// Error of a run: nothing else can be gathered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be written.
    #[error("failed to write {path}; choose another folder with --dest-dir")]
    Write {
        /// The file or folder.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// An earlier report: the two would be mixed.
    #[error("{0} is not empty; choose another folder with --dest-dir")]
    NotEmpty(String),
    /// Nothing could be read.
    #[error("nothing could be read from the API server: {0}")]
    Nothing(ReadError),
}
