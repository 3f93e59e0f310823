"""Who asks, and what their Role allows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.kube.errors import ApiError

Rule = dict[str, Any]
"""As in a Role: `apiGroups`, `resources`, `verbs`, perhaps `resourceNames`."""


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    verb: str
    group: str
    resource: str
    """Plural; with a subresource, `pods/log`."""
    namespace: str = ""
    name: str = ""


@dataclass
class User:
    """Who a token belongs to."""

    name: str
    namespace: str
    """The one that the Role is in."""
    rules: Sequence[Rule] | None
    """None: everything, everywhere."""


@dataclass
class Access:
    """Tokens, and what is taken away from everybody for now."""

    users: dict[str, User] = field(default_factory=dict)
    revoked: set[tuple[str, str]] = field(default_factory=set)
    """Verb and resource (`pods`, `pods/exec`)."""

    def user(self, header: str) -> User:
        """Who sends this Authorization."""
        user = self.users.get(header.removeprefix("Bearer ").strip())
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def check(self, user: User, target: Target) -> None:
        """Refuse what the user's rules don't allow."""
        if not self.allows(user, target):
            raise refusal(user.name, target)

    def allows(self, user: User, target: Target) -> bool:
        """Whether they do."""
        if (target.verb, target.resource) in self.revoked:
            return False
        if user.rules is None:
            return True
        return target.namespace == user.namespace and any(_covers(rule, target) for rule in user.rules)


def refusal(user: str, target: Target) -> ApiError:
    """403, in the server's own words."""
    plural = target.resource.split("/")[0]
    qualified = f"{plural}.{target.group}" if target.group else plural
    named = f'{qualified} "{target.name}"' if target.name else qualified
    where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    message = f'{named} is forbidden: User "{user}" cannot {target.verb} resource "{target.resource}"'
    message += f' in API group "{target.group}" {where}'
    details = {"name": target.name, "group": target.group, "kind": plural}
    return ApiError(403, "Forbidden", message, details={key: text for key, text in details.items() if text})


def _covers(rule: Rule, target: Target) -> bool:
    names = rule.get("resourceNames")
    return (
        _among(target.group, rule.get("apiGroups", ()))
        and _among(target.resource, rule.get("resources", ()))
        and _among(target.verb, rule.get("verbs", ()))
        and (not names or target.name in names)
    )


def _among(value: str, allowed: Iterable[str]) -> bool:
    return any(one in {"*", value} for one in allowed)
