"""How the one call that charges a card travels: once, over a connection of its own."""

import json

from tests.api.charges import (
    BALANCE,
    TOPUP,
)
from tests.raw_servers import (
    Peer,
    RawServer,
    client_at,
    http,
    ok,
    responding,
)

# how it travels


def test_topup_has_its_own_connection_while_reads_share_one():
    def serve(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(http(ok(BALANCE | TOPUP)))

    with RawServer(serve) as server, client_at(server.url) as client:
        client.get_credit_balance()
        client.get_credit_balance()
        assert server.connections == 1
        client.create_topup(1000)
        assert server.connections == 2
        client.create_topup(1000)
        assert server.connections == 3
        client.get_credit_balance()
        assert server.connections == 3


def test_request_holds_only_amount_and_payment_method():
    with RawServer(responding(http(ok(TOPUP)))) as server, client_at(server.url) as client:
        client.create_topup(1000)
        client.create_topup(1234, "pm_1")

    assert [json.loads(body) for body in server.bodies] == [
        {"amount": 1000},
        {"amount": 1234, "payment_method_id": "pm_1"},
    ]
