from lrsearch.data.seeds import derived_seed


def test_neighbouring_seeds_and_numbers_are_kept_apart() -> None:
    seeds = {derived_seed(seed, number) for seed in range(30) for number in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**64 for seed in seeds)


def test_a_seed_is_the_same_for_ever() -> None:
    assert derived_seed(0, 1) == 5836529245451711556
