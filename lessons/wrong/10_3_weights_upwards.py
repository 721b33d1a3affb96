"""The weights run from 2 up in place of down."""


def is_cpf(digits):
    numbers = [int(digit) for digit in digits]
    if len(numbers) != 11 or len(set(numbers)) == 1:
        return False
    for place in (9, 10):
        rest = sum(n * w for n, w in zip(numbers[:place], range(2, place + 2), strict=True)) % 11
        if numbers[place] != (0 if rest < 2 else 11 - rest):
            return False
    return True
