//! x
pub async fn run(_: crate::cli::Where, _: Option<std::net::SocketAddr>, _: Option<std::net::SocketAddr>) -> Result<(), crate::cli::Failure> { Ok(()) }
