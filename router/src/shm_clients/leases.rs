//! What clients with a ring have to do with direct lanes: they ask for them, and are told of their end.
#![forbid(unsafe_code)]

use engine::Nanos;
use protocol::attach::Message;

use super::{ClientId, ShmClients, client_of, touch};
use crate::lanes::LaneWanted;
use crate::net::Desk;
use crate::workers::Workers;

impl ShmClients {
    /// A client wants a direct lane. It is told in either case.
    pub fn want_lane(&mut self, desk: &mut Desk<'_>, workers: &Workers, id: ClientId, wanted: LaneWanted) {
        let Some(client) = client_of(&mut self.clients, id) else { return };
        let usual = self.options.payload_size_usual;
        if let Err(reason) = self.lanes.open(desk, workers, (id, &client.socket), wanted, usual) {
            desk.stats.counters.lanes_refused += 1;
            client.tell(Message::LaneRefused { reason });
        }
    }

    /// Looks at the lanes, when it is time.
    #[inline]
    pub fn look_at_lanes(&mut self, desk: &mut Desk<'_>, workers: &Workers) {
        let Self { lanes, clients, touched, .. } = self;
        lanes.on_time(desk, workers, |id, message| {
            if let Some(client) = client_of(clients, id) {
                client.tell(message);
                // It may be waited for: see `publish`.
                touch(touched, client, id.index);
            }
        });
    }

    /// When lanes are to be looked at next.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.lanes.next_timer()
    }
}
