//! A PostgreSQL cluster of the rig's own: started in a folder of its own, thrown away with this process however it
//! ends; restarted, and failed over to a synchronous standby. Touches no other cluster.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Kept as close to the defaults as a throw-away cluster can be: synced commits above all.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = '64MB'
max_wal_size = '512MB'
wal_keep_size = '256MB'
track_commit_timestamp = on
logging_collector = off
log_min_messages = warning
log_line_prefix = '%m [%p] '
";
/// Waits for the end of its input, which is the end of the rig; then nothing is left. A file `keep` keeps the data.
const GUARDIAN: &str = "trap '' INT HUP TERM; cat >/dev/null
for data in \"$0\"/data-*; do \"$1\" -D \"$data\" -m immediate stop >/dev/null 2>&1; done
[ -e \"$0/keep\" ] || rm -rf \"$0\"";
/// How long one command may take on a busy machine.
const COMMAND: Duration = Duration::from_secs(90);
/// How long the standby may take to become synchronous.
const STANDBY: Duration = Duration::from_mins(1);

/// The running cluster.
pub(crate) struct Database {
    bin: PathBuf,
    /// PostgreSQL refuses to run as root.
    user: Option<&'static str>,
    folder: PathBuf,
    /// Data folders so far; the last one is the primary's.
    count: u32,
    port: u16,
    password: String,
    _guardian: Child,
}

impl Database {
    /// Starts one; `None` where PostgreSQL is not installed.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let Some(bin) = programs()? else { return Ok(None) };
        let root = rustix::process::geteuid().is_root();
        let user = root.then(|| if knows_user("postgres") { "postgres" } else { "nobody" });
        let made = command(user, "mktemp", ["-d", "-t", "postrider-cluster.XXXXXXXX"]).output().await?;
        ensure!(made.status.success(), "mktemp: {}", String::from_utf8_lossy(&made.stderr));
        let folder = PathBuf::from(String::from_utf8(made.stdout)?.trim());
        let guardian = command(
            user,
            "sh",
            [OsStr::new("-c"), GUARDIAN.as_ref(), folder.as_ref(), bin.join("pg_ctl").as_ref()],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
        let password = format!("{:032x}", rand::random::<u128>());
        let mut database = Self { bin, user, folder, count: 1, port: 0, password, _guardian: guardian };
        database.initialise().await?;
        Ok(Some(database))
    }

    async fn initialise(&mut self) -> Result<()> {
        let secret = self.folder.join("password");
        self.write(&secret, &self.password).await?;
        let data = self.data();
        let file = format!("--pwfile={}", secret.display());
        let words = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", &file];
        let words = [&words[..], &["--auth-local=trust", "--auth-host=scram-sha-256", "-D"]].concat();
        let words = words.into_iter().map(OsStr::new).chain([data.as_os_str()]);
        self.run("initdb", words).await?;
        let settings = data.join("postgresql.auto.conf");
        let folder = format!("{SETTINGS}unix_socket_directories = '{}'\n", self.folder.display());
        self.write(&settings, &folder).await?;
        self.port = free_port()?;
        self.launch(&data, self.port).await
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the primary listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its URL by way of another port.
    pub(crate) fn url_through(&self, port: u16) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{port}/postgres?sslmode=disable", self.password)
    }

    /// Ends it as a crash would and starts it again.
    pub(crate) async fn restart(&self) -> Result<()> {
        let data = self.data();
        self.control(&data, &["-m", "immediate", "stop"]).await?;
        self.launch(&data, self.port).await
    }

    /// Makes a standby that every commit waits for.
    pub(crate) async fn add_standby(&mut self) -> Result<u16> {
        let data = self.folder.join(format!("data-{}", self.count + 1));
        let source = format!(
            "host={} port={} user=postgres application_name=standby",
            self.folder.display(),
            self.port
        );
        let words = [OsStr::new("-D"), data.as_ref(), "-d".as_ref(), source.as_ref()];
        let words = words.into_iter().chain(["-X", "stream", "-c", "fast", "-N", "-R"].map(OsStr::new));
        self.run("pg_basebackup", words).await?;
        let port = free_port()?;
        self.launch(&data, port).await?;
        self.rows("ALTER SYSTEM SET synchronous_standby_names = 'standby'").await?;
        self.rows("SELECT pg_reload_conf()").await?;
        let begun = Instant::now();
        let in_step =
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'";
        while self.rows(in_step).await? != [["1"]] {
            ensure!(begun.elapsed() < STANDBY, "the standby did not become synchronous");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(port)
    }

    /// The primary is gone for good; the standby takes its place.
    pub(crate) async fn fail_over(&mut self, standby: u16) -> Result<()> {
        let before = self.data();
        self.control(&before, &["-m", "immediate", "stop"]).await?;
        self.count += 1;
        self.port = standby;
        self.control(&self.data(), &["-w", "-t", "60", "promote"]).await?;
        std::fs::remove_dir_all(&before).with_context(|| format!("removing {}", before.display()))
    }

    /// Rows of a query, as text.
    pub(crate) async fn rows(&self, query: &str) -> Result<Vec<Vec<String>>> {
        let port = self.port.to_string();
        let words =
            ["-X", "-q", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"];
        let words = words.into_iter().map(OsStr::new);
        let words = words.chain([OsStr::new("-h"), self.folder.as_ref(), "-p".as_ref(), port.as_ref()]);
        let output = command(self.user, self.bin.join("psql"), words.chain(["-c".as_ref(), query.as_ref()]))
            .stdin(Stdio::null())
            .output();
        let output = timeout(COMMAND, output).await.context("psql takes too long")??;
        ensure!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
    }

    fn data(&self) -> PathBuf {
        self.folder.join(format!("data-{}", self.count))
    }

    async fn launch(&self, data: &Path, port: u16) -> Result<()> {
        let log = self.folder.join("log").display().to_string();
        self.control(data, &["-l", &log, "-w", "-t", "60", "-o", &format!("-p {port}"), "start"]).await
    }

    async fn control(&self, data: &Path, words: &[&str]) -> Result<()> {
        let place = [OsStr::new("-D"), data.as_os_str()];
        self.run("pg_ctl", place.into_iter().chain(words.iter().map(OsStr::new))).await
    }

    /// Runs a program of PostgreSQL; what it says goes to a file, because what it starts keeps its output open.
    async fn run<S: AsRef<OsStr>>(&self, program: &str, words: impl IntoIterator<Item = S>) -> Result<()> {
        let said = tempfile::NamedTempFile::new()?;
        let output = || Ok::<_, std::io::Error>(Stdio::from(File::options().append(true).open(said.path())?));
        let mut child = command(self.user, self.bin.join(program), words)
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn()?;
        let status =
            timeout(COMMAND, child.wait()).await.with_context(|| format!("{program} takes too long"))??;
        if !status.success() {
            let said = std::fs::read_to_string(said.path()).unwrap_or_default();
            bail!("{program} ended with {status}; its log is {}/log: {said}", self.folder.display());
        }
        Ok(())
    }

    /// Writes a file as the cluster's user.
    async fn write(&self, file: &Path, text: &str) -> Result<()> {
        let mut child = command(self.user, "tee", [OsStr::new("-a"), file.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child.stdin.take().context("tee without an input")?.write_all(text.as_bytes()).await?;
        ensure!(child.wait().await?.success(), "{} could not be written", file.display());
        Ok(())
    }
}

/// A program, run by the cluster's user.
fn command<S: AsRef<OsStr>>(
    user: Option<&str>,
    program: impl AsRef<OsStr>,
    words: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = match user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", user, "--"]).arg(program);
            command
        }
    };
    command.args(words).current_dir("/");
    command
}

/// The newest release that is installed.
fn programs() -> Result<Option<PathBuf>> {
    let Ok(releases) = std::fs::read_dir("/usr/lib/postgresql") else { return Ok(None) };
    let mut found = Vec::new();
    for release in releases {
        let bin = release?.path().join("bin");
        let number = bin.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        if let Some(number) = number.and_then(|text| text.parse::<u32>().ok())
            && bin.join("initdb").is_file()
        {
            found.push((number, bin));
        }
    }
    Ok(found.into_iter().max().map(|(_, bin)| bin))
}

fn knows_user(name: &str) -> bool {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().any(|line| line.split(':').next() == Some(name))
}

/// Free when it was asked for.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
