use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) grpc: u16,
    /// Used only for a server with web UI.
    pub(crate) ui: u16,
}

impl Ports {
    /// Two free ports. Somebody may still take one before the server does: then the server ends,
    /// and is started with others.
    pub(crate) fn free() -> io::Result<Self> {
        Ok(Self { grpc: free_port()?, ui: free_port()? })
    }
}

/// A port that the system will hardly give to anybody else soon.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    // A connection that this side closes first lingers (TIME_WAIT). Meanwhile nobody is given the
    // port who asks for any, but a server that asks for this one can have it.
    let _other_side = TcpStream::connect(address)?;
    drop(listener.accept()?);
    Ok(address.port())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::ready::Backoff;

    #[tokio::test]
    async fn a_free_port_can_be_listened_on_and_is_not_given_twice() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        // A command that another test starts at the same time holds the listener until it runs.
        let mut backoff = Backoff::until(Duration::from_secs(20));
        for &port in &ports {
            while let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                assert!(backoff.wait().await, "port {port}: {error}");
            }
        }
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    }
}
