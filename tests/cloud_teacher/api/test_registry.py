"""The registry over HTTP: versions, labels, roles, and guidance that follows a moved label."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from sqlalchemy import Engine

from cloud_teacher.auth.caller import Allowance, Role
from cloud_teacher.store.keys import create
from cloud_teacher.store.tables import registry_versions
from shared.protocol.guidance import Start
from tests.cloud_teacher.api.test_usage import ask, bearer, body, cloud
from tests.cloud_teacher.fakes import ScriptedTeacher

TEMPLATE = "---\nsummary: Terse.\n---\n{{ question }}\n\nAnswer in one line.\n"
BETTER = "---\nsummary: Terser.\nsystem: Be terse.\n---\n{{ question }}\n"
POLICY = '{"mode": "review", "acceptance_threshold": 0.3}'


class Client:
    """Calls the registry with one key."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http = http
        self.headers = bearer(key)

    async def get(self, path: str) -> Any:
        response = await self._http.get(f"/v1/registry/{path}", headers=self.headers)
        return response.json() if response.status_code == 200 else response

    async def push(self, path: str, content: str, message: str = "") -> httpx.Response:
        body = {"content": content, "message": message}
        return await self._http.post(f"/v1/registry/{path}/versions", json=body, headers=self.headers)

    async def move(self, path: str, label: str, reference: str | None, reason: str = "") -> httpx.Response:
        body = {"reference": reference, "reason": reason}
        return await self._http.put(f"/v1/registry/{path}/labels/{label}", json=body, headers=self.headers)

    async def rollback(self, path: str, label: str) -> httpx.Response:
        return await self._http.post(f"/v1/registry/{path}/labels/{label}/rollback", json={}, headers=self.headers)

    async def template_of_guidance(self, template: str) -> str:
        start = (await ask(self._http, self.headers, body(template=template)))[0]
        assert isinstance(start, Start)
        return start.template


def clients(engine: Engine, http: httpx.AsyncClient) -> tuple[Client, Client, Client]:
    return tuple(Client(http, create(engine, role.value, Allowance(), role=role)) for role in Role)  # type: ignore[return-value]


async def until_allowed(client: Client) -> None:
    """The service reads new keys once a second."""
    while isinstance(await client.get("templates"), httpx.Response):
        await asyncio.sleep(0.05)


async def test_versions_are_numbered_and_labels_decide_what_a_name_means(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        _, editor, operator = clients(engine, http)
        await until_allowed(operator)
        first, second = [(await editor.push("templates/terse", text, "try")).json() for text in (TEMPLATE, BETTER)]
        assert (first["version"], second["version"], second["author"], second["message"]) == (1, 2, "editor", "try")
        assert (await editor.template_of_guidance("terse")).startswith("terse@2#"), "the newest without a label"

        assert (await operator.move("templates/terse", "production", "1", "it is safe")).json()["to_version"] == 1
        assert (await editor.move("templates/terse", "candidate", "latest")).json()["to_version"] == 2
        identities = [await editor.template_of_guidance(f"terse{at}") for at in ("", "@2", "@candidate", "@latest")]
        assert [identity.partition("#")[0] for identity in identities] == ["terse@1", "terse@2", "terse@2", "terse@2"]
        assert await editor.template_of_guidance(identities[0]) == identities[0]
        listed = {artifact["name"]: artifact for artifact in (await editor.get("templates"))["artifacts"]}
        assert listed["terse"] == {
            "name": "terse",
            "versions": [1, 2],
            "labels": {"latest": 2, "candidate": 2, "production": 1},
        }
        assert listed["answer"]["versions"] == [1], "the packaged templates are versions too"


async def test_a_rollback_is_a_move_and_all_moves_are_kept(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        _, editor, operator = clients(engine, http)
        await until_allowed(operator)
        for text in (TEMPLATE, BETTER):
            await editor.push("templates/terse", text)
        assert (await operator.rollback("templates/terse", "production")).status_code == 404
        for version in ("1", "2"):
            await operator.move("templates/terse", "production", version, f"to {version}")
        assert (await operator.rollback("templates/terse", "production")).json()["to_version"] == 1
        moves = (await editor.get("templates/terse/moves"))["moves"]
        assert [(m["from_version"], m["to_version"], m["author"], m["reason"]) for m in moves] == [
            (2, 1, "operator", ""),
            (1, 2, "operator", "to 2"),
            (None, 1, "operator", "to 1"),
        ]
        assert (await operator.move("templates/terse", "production", None)).json()["to_version"] is None
        assert (await editor.template_of_guidance("terse")).startswith("terse@2#")


async def test_roles_limit_who_may_push_and_move(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        viewer, editor, operator = clients(engine, http)
        await until_allowed(operator)
        refused = await viewer.push("templates/terse", TEMPLATE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert refused.json()["error"]["message"] == "key viewer has the role viewer; this needs editor"
        assert (await editor.push("templates/terse", TEMPLATE)).status_code == 201
        assert (await viewer.get("templates/terse/versions/1"))["content"].startswith("---\nname: terse\nversion: 1\n")
        assert (await editor.move("templates/terse", "production", "1")).status_code == 403
        assert (await editor.move("templates/terse", "candidate", "1")).status_code == 200
        assert (await viewer.move("templates/terse", "candidate", None)).status_code == 403


async def test_the_same_content_adds_no_version(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        _, editor, operator = clients(engine, http)
        await until_allowed(operator)
        stored = (await editor.push("templates/terse", TEMPLATE)).json()
        for content in (TEMPLATE, stored["content"], TEMPLATE.replace("\n", "\r\n")):
            assert (await editor.push("templates/terse", content)).json()["version"] == 1
        policies = [(await editor.push("policies/maths", text)).json() for text in (POLICY, POLICY.replace(" ", "  "))]
        assert [policy["version"] for policy in policies] == [1, 1]
        assert json.loads(policies[0]["content"]) == {
            "format": 1,
            "name": "maths",
            "mode": "review",
            "acceptance_threshold": 0.3,
        }


async def test_what_could_not_be_used_is_not_stored(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        editor = Client(http, create(engine, "editor", Allowance(), role=Role.EDITOR))
        await until_allowed(editor)
        for path, content, message in [
            ("templates/terse", "no front matter", "expected front matter"),
            ("templates/terse", TEMPLATE + "\0", "NUL character"),
            ("templates/Terse", TEMPLATE, "'Terse' is not a name"),
            ("policies/maths", '{"mode": "review", "doubt": 0.5}', "doubt"),
        ]:
            refused = await editor.push(path, content)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
            assert message in refused.json()["error"]["message"]
            kind, name = path.split("/")
            assert name not in {artifact["name"] for artifact in (await editor.get(kind))["artifacts"]}


async def test_labels_and_references_that_mean_nothing_are_refused(store_url: str, engine: Engine) -> None:
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        operator = Client(http, create(engine, "operator", Allowance(), role=Role.OPERATOR))
        await until_allowed(operator)
        await operator.push("templates/terse", TEMPLATE)
        for label, reference, status in [
            ("production", "9", 404),
            ("production", "nowhere", 404),
            ("production", "1#00000000", 400),
            ("latest", "1", 400),
            ("Upper", "1", 400),
            ("12", "1", 400),
        ]:
            refused = await operator.move("templates/terse", label, reference)
            assert refused.status_code == status, (label, reference)
        assert (await operator.get("templates/terse/versions/9")).status_code == 404
        assert (await operator.get("templates/none/versions/1")).status_code == 404
        assert (await operator.move("templates/none", "x", "1")).status_code == 404


async def test_another_replica_follows_without_a_restart(store_url: str, engine: Engine) -> None:
    operator = create(engine, "operator", Allowance(), role=Role.OPERATOR)
    async with (
        cloud(store_url, ScriptedTeacher("4")) as one,
        cloud(store_url, ScriptedTeacher("4")) as other,
    ):
        writer, reader = Client(one, operator), Client(other, operator)
        await until_allowed(writer)
        await until_allowed(reader)
        pushed = await asyncio.gather(
            *(c.push("templates/terse", t) for c, t in ((writer, TEMPLATE), (reader, BETTER)))
        )
        assert sorted(response.json()["version"] for response in pushed) == [1, 2], "each push has its own number"
        await writer.move("templates/terse", "production", "1")
        async with asyncio.timeout(10):
            while isinstance(await reader.get("templates/terse/versions/production"), httpx.Response):
                await asyncio.sleep(0.05)


async def test_a_rollback_undoes_the_last_move_wherever_it_was_made(store_url: str, engine: Engine) -> None:
    operator = create(engine, "operator", Allowance(), role=Role.OPERATOR)
    async with (
        cloud(store_url, ScriptedTeacher("4")) as one,
        cloud(store_url, ScriptedTeacher("4")) as other,
    ):
        here, there = Client(one, operator), Client(other, operator)
        await until_allowed(here)
        await until_allowed(there)
        for number in range(1, 4):
            await here.push("templates/terse", TEMPLATE.replace("one", str(number)))
            await here.move("templates/terse", "production", str(number))
        assert (await there.rollback("templates/terse", "production")).json()["to_version"] == 2
        assert (await there.push("templates/terse", TEMPLATE)).json()["version"] == 4
        assert (await here.move("templates/terse", "production", "4")).status_code == 200, "it sees the other's push"


async def test_a_version_of_a_newer_release_is_left_out(store_url: str, engine: Engine) -> None:
    newer = "---\nname: terse\nversion: 1\nsummary: x\ncolour: red\n---\n{{ question }}\n"
    row = {"kind": "template", "name": "terse", "version": 1, "digest": "0" * 64, "content": newer, "author": "new"}
    with engine.begin() as connection:
        connection.execute(registry_versions.insert().values(**row, message="", created_ms=1))
    async with cloud(store_url, ScriptedTeacher("4")) as http:
        editor = Client(http, create(engine, "editor", Allowance(), role=Role.EDITOR))
        await until_allowed(editor)
        assert (await editor.push("templates/terse", TEMPLATE)).json()["version"] == 2
        assert (await editor.template_of_guidance("terse")).startswith("terse@2#")


async def test_without_a_database_the_packaged_templates_can_be_read() -> None:
    from cloud_teacher.app import create_app
    from cloud_teacher.config.settings import CloudSettings
    from tests.running import serving

    async with (
        serving(create_app(CloudSettings(keys=["k"]), teacher=ScriptedTeacher("4"))) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        client = Client(http, "k")
        assert "answer" in {artifact["name"] for artifact in (await client.get("templates"))["artifacts"]}
        assert (await client.push("templates/terse", TEMPLATE)).status_code == 403
