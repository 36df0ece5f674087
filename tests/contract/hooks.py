"""What schemathesis cannot know of the API."""

import schemathesis
from hypothesis import strategies

# Left alone, it makes up headers of letters and digits only, and an entity tag has its quotes. Nobody
# guesses the right one: most requests take any, or none would get further than that.
tag = strategies.from_regex(r'(W/)?"[!#-~]{0,40}"', fullmatch=True)
tags = strategies.lists(tag, min_size=1, max_size=3).map(", ".join)
any_tag = strategies.just("*")
schemathesis.openapi.format("entity-tags", any_tag | any_tag | any_tag | tags)


@schemathesis.hook
def before_call(context, case, **kwargs):
    """What was deleted is looked for afterwards, in a row of calls: there, none only pretends to."""
    in_a_row = case.meta is not None and case.meta.phase.name == "stateful"
    if in_a_row and case.method.upper() == "DELETE" and isinstance(case.body, dict):
        if case.body.get("dry_run") is True:
            case.body["dry_run"] = False
