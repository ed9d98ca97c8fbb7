"""The span that is measured, in Python: the same 440 bytes of JSON as benches/peers/src/sample.rs."""

NAME = "look up invoice"


def text(number):
    scattered = (number * 2654435761) % 2**32
    return f"invoice {number:06} of customer {scattered:010}: total 1,{number % 1000:03} EUR, due"
