from k2.simulator.limits import ConnectionAttempts, RequestWeights, SlidingCount, Verdict


def test_the_sixth_frame_within_a_second_is_one_too_many() -> None:
    frames = SlidingCount(events_max=5, window_s=1)
    assert [frames.admit(10 + n / 10) for n in range(6)] == [True] * 5 + [False]


def test_five_frames_each_second_are_fine_for_ever() -> None:
    frames = SlidingCount(events_max=5, window_s=5)
    assert all(frames.admit(now) for now in range(1000))


def test_the_301st_attempt_in_five_minutes_is_refused_and_counts() -> None:
    attempts = ConnectionAttempts(attempts_max=300, window_s=300)
    assert all(attempts.admit("1.2.3.4", n / 10) for n in range(300))
    assert not attempts.admit("1.2.3.4", 30)
    assert attempts.admit("5.6.7.8", 30)
    # The refused attempt at 30 s counts: of the 300 allowed, 299 are free again at 330 s.
    assert all(attempts.admit("1.2.3.4", 329.99) for _ in range(299))
    assert not attempts.admit("1.2.3.4", 329.99)


def test_a_banned_address_is_refused_until_the_ban_ends() -> None:
    attempts = ConnectionAttempts(attempts_max=300, window_s=300)
    attempts.ban("1.2.3.4", until_s=100)
    assert not attempts.admit("1.2.3.4", 99)
    assert attempts.admit("1.2.3.4", 100)


def _weights(*, weight_max: int = 100, window_s: float = 60) -> RequestWeights:
    return RequestWeights(
        weight_max=weight_max, window_s=window_s, refusals_before_ban=2, ban_first_s=120
    )


def test_weight_is_used_up_per_address_and_minute() -> None:
    weights = _weights()
    assert [weights.charge("a", 40, 600).used_weight for _ in range(2)] == [40, 80]
    refused = weights.charge("a", 40, 615)
    assert (refused.verdict, refused.retry_after_s) == (Verdict.TOO_MANY, 45)
    assert weights.charge("b", 40, 615).verdict is Verdict.SERVE
    assert weights.charge("a", 40, 660).verdict is Verdict.SERVE


def test_going_on_after_429_is_banned_and_bans_grow_to_three_days() -> None:
    weights = _weights(weight_max=0, window_s=1)
    now, bans = 0.0, []
    for _ in range(16):
        verdicts = [weights.charge("a", 1, now) for _ in range(3)]
        assert [v.verdict for v in verdicts[:2]] == [Verdict.TOO_MANY] * 2
        assert verdicts[2].verdict is Verdict.BANNED
        bans.append(verdicts[2].retry_after_s)
        assert weights.charge("a", 1, now + bans[-1] - 1).verdict is Verdict.BANNED
        now += bans[-1] + 1
    assert bans[:4] == [120, 240, 480, 960]
    assert bans[-1] == 3 * 86400
