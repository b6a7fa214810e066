from groundup.generation.lookup import FIRST_GUESS, LONGEST_GUESS, PromptLookup


def test_a_guess_is_how_the_text_went_on_where_its_end_stood_last():
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 8, 7, 1, 2, 3])
    assert lookup.guess(10) == [9, 8, 7]
    assert lookup.guess(2) == [9, 8]
    lookup.push(9)
    assert lookup.guess(1) == [8]
    lookup.push(0)
    assert lookup.guess(5) == []


def test_a_text_too_short_to_repeat_itself():
    assert PromptLookup([]).guess(5) == []
    assert PromptLookup([1, 1, 1]).guess(5) == []
    assert PromptLookup([1, 2, 3, 1, 2]).guess(5) == []


def test_a_guess_reads_on_in_itself():
    lookup = PromptLookup([1, 1, 1, 1])
    lookup.learn(FIRST_GUESS, FIRST_GUESS)
    assert lookup.guess(9) == [1] * 2 * FIRST_GUESS
    lookup = PromptLookup([5, 6, 5, 6, 5])
    lookup.learn(3, 3)
    assert lookup.guess(5) == [6, 5, 6, 5, 6]


def test_guesses_grow_while_they_are_right_and_shrink_to_what_was():
    lookup = PromptLookup([1] * 5)
    lengths = []
    for right in (3, 6, 12, 15, 4, 0, 0, 1):
        lengths.append(len(lookup.guess(99)))
        lookup.learn(lengths[-1], right)
    assert lengths == [3, 6, 12, LONGEST_GUESS, LONGEST_GUESS, 4, 1, 1]
    assert len(lookup.guess(99)) == 2
