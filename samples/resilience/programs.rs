//! The programs of PostgreSQL. They refuse to run as root, and then run as `postgres`.

use std::{
    io::Error,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(crate) struct Programs {
    folder: PathBuf,
    is_root: bool,
}

impl Programs {
    /// Finds the programs, which are often not in the PATH.
    pub(crate) fn find() -> Option<Self> {
        let places = "ls $(command -v initdb) /usr/lib/postgresql/*/bin/initdb | tail -n 1";
        let found = output("sh", &["-c", places]);
        let folder = Path::new(found.trim()).parent()?.to_owned();
        let is_root = output("id", &["-u"]).trim() == "0";
        let found = folder.join("initdb").exists();
        found.then_some(Self { folder, is_root })
    }

    /// Gives a folder to the user of the server.
    pub(crate) fn hand_over(&self, folder: &Path) -> Result<(), Error> {
        if self.is_root {
            run(Command::new("chown").arg("postgres").arg(folder))?;
        }
        Ok(())
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Error> {
        let program = self.folder.join(program);
        if self.is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            return run(command.args(arguments));
        }
        run(Command::new(program).args(arguments))
    }
}

fn run(command: &mut Command) -> Result<(), Error> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = quiet.current_dir("/").status()?;
    let failed = || Error::other(format!("{command:?} failed"));
    status.success().then_some(()).ok_or_else(failed)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}
