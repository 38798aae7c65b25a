//! A private PostgreSQL server on loopback, in a temporary folder.

use std::{io::Error, net::TcpListener};

use tempfile::TempDir;

use crate::programs::Programs;

/// Stopped, and its folder removed, when it is dropped.
pub(crate) struct Server {
    programs: Programs,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// Creates and starts a server; `None` if PostgreSQL is not installed.
    pub(crate) fn start() -> Result<Option<Self>, Error> {
        let Some(programs) = Programs::find() else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        programs.hand_over(folder.path())?;
        let server = Self {
            programs,
            folder,
            port: TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port(),
        };
        server.run("initdb", &["-U", "postgres", "-A", "trust", "-N"])?;
        server.revive()?;
        Ok(Some(server))
    }

    /// Ends all processes of the server at once, without a shutdown.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        self.run("pg_ctl", &["stop", "-m", "immediate"])
    }

    /// Starts the server again, and waits until it takes connections.
    pub(crate) fn revive(&self) -> Result<(), Error> {
        let (log, port) = (self.folder.path().join("log"), self.port);
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''");
        let log = log.to_string_lossy();
        self.run("pg_ctl", &["start", "-w", "-l", &log, "-o", &options])
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Error> {
        let data = self.folder.path().join("data");
        let data = data.to_string_lossy();
        let arguments = [arguments, &["-D", &data]].concat();
        self.programs.run(program, &arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("the server is not stopped: {error}");
        }
    }
}
