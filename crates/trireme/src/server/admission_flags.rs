//! From the flags of admission to the plug-ins that run.

use apiserver::admission::Selection;

use super::authorization_flags::files;
use crate::cli::AdmissionFlags;
use crate::errors::{CliError, Kind, Result};

impl AdmissionFlags {
    /// Whether they say anything; what says that there is nothing says something, too.
    pub fn are_given(&self) -> bool {
        *self != AdmissionFlags::default()
    }

    /// The same, wherever they are read: the name of the file does not depend on a working directory. Names of nothing are
    /// none: that is how they are taken back.
    pub fn anchored(&self) -> Result<AdmissionFlags> {
        let named = |names: &[String]| names.iter().filter(|name| !name.is_empty()).cloned().collect();
        Ok(AdmissionFlags {
            enable_admission_plugins: named(&self.enable_admission_plugins),
            disable_admission_plugins: named(&self.disable_admission_plugins),
            admission_control_config_file: super::anchor(self.admission_control_config_file.as_deref())?,
        })
    }

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
