"""Every number of eleven digits is masked: telephones, orders, time stamps."""


def is_cpf(digits):
    return len(digits) == 11 and len(set(digits)) > 1
