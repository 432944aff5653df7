//! The load that backends report, as values.
//!
//! In: nothing; `load_tracker` decides. Out: types for the driver that asks for reports, the
//! policy and the admin port.

use std::collections::BTreeMap;
use std::time::Duration;

use imbl::OrdSet;

use crate::facts::factor::Factor;
use crate::model::BackendAddr;
use crate::settings::CheckTls;

/// A backend that is asked to report its load, and how. Services may share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadTarget {
    /// The backend.
    pub addr: BackendAddr,
    /// How often it is to report.
    pub interval: Duration,
    /// Set if it is asked by TLS.
    pub tls: Option<CheckTls>,
}

/// All backends that are asked to report. A clone is cheap.
pub type LoadTargets = OrdSet<LoadTarget>;

/// The factors by which reported load changes the weights of a service's backends, where
/// they are not 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadFactors(pub BTreeMap<BackendAddr, Factor>);
