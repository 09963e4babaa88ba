"""What the real servers of tests, chaos and benchmarks share."""

from chaos.servers import PORTS, free_ports


def test_a_port_is_given_to_one_server_only():
    """Although the first asked has not begun to listen when the last asks."""
    given = [port for _ in range(500) for port in free_ports(2)]
    assert len(set(given)) == len(given)
    assert set(given) <= set(PORTS)
