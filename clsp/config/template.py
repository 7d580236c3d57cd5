"""Names and labels with a {placeholder} in them, judged before anything is filled in."""

import string
from collections.abc import Callable


def template_of(name: str) -> Callable[[str], str]:
    """A check that a text has no placeholder but {name}.

    Args:
        name: The one that will be filled in.

    Returns:
        A function that gives the text back, or raises ValueError saying what stands there instead.
    """

    def check(text: str) -> str:
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"not a valid pattern ({error})") from None
        for _, field, form, conversion in pieces:
            if field is not None and (field != name or form or conversion):
                extra = f"!{conversion}" if conversion else ""
                extra += f":{form}" if form else ""
                raise ValueError(f"the only placeholder here is {{{name}}}, not {{{field}{extra}}}")
        return text

    return check
