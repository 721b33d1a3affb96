"""The second check digit is not looked at."""


def is_cpf(digits):
    numbers = [int(digit) for digit in digits]
    if len(numbers) != 11 or len(set(numbers)) == 1:
        return False
    rest = sum(n * w for n, w in zip(numbers[:9], range(10, 1, -1), strict=True)) % 11
    return numbers[9] == (0 if rest < 2 else 11 - rest)
