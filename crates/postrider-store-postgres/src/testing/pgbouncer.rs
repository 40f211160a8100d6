//! A `PgBouncer` of its own before a throw-away cluster, where it is installed.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
/// Where it lies on Debian, which is not in everybody's path.
const PROGRAMS: [&str; 2] = ["/usr/sbin/pgbouncer", "pgbouncer"];

/// A running pooler; ends when it is dropped.
#[derive(Debug)]
pub struct Pgbouncer {
    child: Child,
    port: u16,
    user: String,
    _folder: TempDir,
}

impl Pgbouncer {
    /// Starts one in this mode (`session`, `transaction`) before the server of this URL
    /// (`postgres://user:password@host:port/…`); `None` where it is not installed.
    pub fn start(server: &str, pool_mode: &str) -> io::Result<Option<Self>> {
        let wrong = || io::Error::other("the server's URL has no user, password, host and port");
        let rest = server.split_once("://").ok_or_else(wrong)?.1;
        let (user, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let (password, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (host, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let server_port = rest.split_once('/').ok_or_else(wrong)?.0;
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let users = folder.path().join("users.txt");
        fs::write(&users, format!("\"{user}\" \"{password}\"\n"))?;
        let settings = folder.path().join("pgbouncer.ini");
        // Few sessions for many connections: each transaction is likely to get another one.
        let text = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\ndefault_pool_size = {}\n\
             max_client_conn = 200\nserver_round_robin = 1\nquery_wait_timeout = 20\n",
            users.display(),
            if pool_mode == "session" { 40 } else { 5 },
        );
        fs::write(&settings, text)?;
        // It refuses to run as root, and runs as this user, who must be able to read.
        for (path, mode) in [(folder.path(), 0o755), (&users, 0o644), (&settings, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        let Some(child) = spawn(&settings)? else { return Ok(None) };
        let pooler = Self { child, port, user: user.to_owned(), _folder: folder };
        pooler.wait()?;
        Ok(Some(pooler))
    }

    fn wait(&self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            #[expect(clippy::disallowed_methods, reason = "a program that this test started")]
            let answer = std::net::TcpStream::connect(("127.0.0.1", self.port));
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > START => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{database}", self.user, self.port)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(settings: &std::path::Path) -> io::Result<Option<Child>> {
    let root = rustix::process::getuid().is_root();
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.arg("-q");
        if root {
            command.args(["-u", "nobody"]);
        }
        let spawned =
            command.arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        match spawned {
            Ok(child) => return Ok(Some(child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
