"""`gkt edge`: one edge in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gkt.local.preflight import free_port, leave_on_sigterm, need_edge_engine, override

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def edge(
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Student: a name from `gkt models list`, a GGUF file, or owner/repo:file.gguf on the hub."),
    ] = None,
    cloud_url: Annotated[
        str | None, typer.Option(help="Base URL of the cloud. If unset, the student answers alone.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(dir_okay=False, help="Policy file, such as `gkt tune` writes.")] = None,
    max_guidance_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of guidance in an answer, if the request sets none.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Log level: debug, info, warning or error.")] = None,
) -> None:
    """Run an edge, the student on llama.cpp, until Ctrl-C or SIGTERM. A missing student is downloaded.

    The edge listens on 127.0.0.1:8081 with OpenAI's API: model `gkt` is guided, `gkt-student` never calls the cloud, and with
    `gkt-teacher` the teacher writes the whole answer. If GKT_EDGE_API_KEYS (comma-separated) is set, clients need one of these
    keys; otherwise keep the edge on 127.0.0.1.

    Other settings come from the environment: GKT_EDGE_CLOUD_KEY (the cloud's bearer key), GKT_EDGE_CONTEXT_TOKENS,
    GKT_EDGE_THREADS, GKT_EDGE_FIRST_TOKEN_DEADLINE_S, ...: docs/reference/configuration.md lists all of them.

    Example: GKT_EDGE_CLOUD_KEY=... gkt edge --cloud-url https://cloud.example.org
    """
    override(
        {
            "GKT_EDGE_MODEL": model,
            "GKT_EDGE_CLOUD_URL": cloud_url,
            "GKT_EDGE_POLICY_FILE": policy,
            "GKT_EDGE_MAX_GUIDANCE_TOKENS": max_guidance_tokens,
            "GKT_EDGE_HOST": host,
            "GKT_EDGE_PORT": port,
            "GKT_EDGE_LOG_LEVEL": log_level,
        }
    )
    from edge_student.answering.strategies import STRATEGIES
    from edge_student.policy import PolicyResolver
    from edge_student.settings import EdgeSettings
    from shared.server.settings import read_settings

    settings = read_settings(EdgeSettings)
    PolicyResolver.from_settings(settings, STRATEGIES)  # report a bad policy file before any download
    need_edge_engine()
    free_port(settings.host, settings.port, option="--port")
    leave_on_sigterm()  # during the download; later the service handles signals itself

    from gkt.commands.models import shown_progress
    from shared.model_hub.local_models import ensure_gguf

    ensure_gguf(settings.model, progress=shown_progress())
    from edge_student.__main__ import main

    raise typer.Exit(main())
