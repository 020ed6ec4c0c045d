"""Round-robin order, whatever is taken, removed or skipped."""

from ollama_async.core.round_robin import RoundRobin


def filled(clients):
    """One item for each letter, named by client and position."""
    queue = RoundRobin()
    for number, client in enumerate(clients):
        queue.put(client, number, f"{client}{number}")
    return queue


def test_clients_take_turns_and_each_keeps_its_own_order():
    queue = filled("aaabbc")
    assert list(queue.heads()) == ["a0", "b3", "c5"]
    assert [queue.take() for _ in range(6)] == ["a0", "b3", "c5", "a1", "b4", "a2"]
    assert len(queue) == 0


def test_removing_an_item_does_not_change_the_turns():
    queue = filled("aab")
    queue.remove(0)
    queue.remove(0)
    assert (len(queue), list(queue)) == (2, ["a1", "b2"])
    queue.remove(1)
    assert list(queue.heads()) == ["b2"]


def test_a_client_whose_turn_is_over_goes_behind_all_others():
    queue = filled("aab")
    queue.move_to_end("a")
    queue.move_to_end("nobody")
    assert list(queue.heads()) == ["b2", "a0"]


def test_an_item_that_is_taken_out_of_order_ends_its_clients_turn():
    queue = filled("aaab")
    assert queue.take_item(1) == "a1"
    assert 1 not in queue
    assert 2 in queue
    assert [queue.take() for _ in range(3)] == ["b3", "a0", "a2"]
    queue.put("c", 9, "c9")
    assert queue.take_item(9) == "c9"
    assert not queue
