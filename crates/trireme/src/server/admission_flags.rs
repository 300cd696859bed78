//! From the flags of admission to the plug-ins that run.

use apiserver::admission::Selection;

use super::authorization_flags::files;
use crate::cli::AdmissionFlags;
use crate::errors::{CliError, Kind, Result};

impl AdmissionFlags {
    /// The plug-ins that the flags choose.
    ///
    /// # Errors
    /// There is no such plug-in, or the file cannot be used.
    pub fn selection(&self) -> Result<Selection> {
        let file = self.admission_control_config_file.as_ref().map(std::path::absolute);
        let file = file.transpose().map_err(CliError::internal)?;
        let (enable, disable) = (&self.enable_admission_plugins, &self.disable_admission_plugins);
        Selection::new(enable, disable, file.as_deref(), &files()).map_err(|errors| {
            let hint = "docs/admission.md lists the plug-ins and says which of them take a configuration";
            CliError::new(Kind::Usage, "ADMISSION", errors.join("; ")).hint(hint)
        })
    }
}
