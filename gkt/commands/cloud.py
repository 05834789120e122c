"""`gkt cloud`: one cloud in this process."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gkt.local.preflight import free_port, leave_on_sigterm, need_cloud_engine, need_ray, override
from shared.errors import ConfigurationError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def cloud(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Teacher: a name from `gkt models list`, a GGUF file, a model folder, or owner/repo on the hub."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Addresses beyond this machine require a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Log level: debug, info, warning or error.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Serve with Ray Serve, with replicas of the teacher.")] = False,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="MIN[:MAX]", help="With --ray: number of replicas, or a range that follows the load. [default: 1]"
        ),
    ] = None,
) -> None:
    """Run a cloud, the teacher on vLLM, until Ctrl-C or SIGTERM. A missing teacher is downloaded and converted.

    The cloud listens on 127.0.0.1:8080. For edges elsewhere, let it listen on an address that they can reach, which requires a
    key. A key is a setting and never an option, because anyone on the machine can read command lines.

    Other settings come from the environment: GKT_CLOUD_KEYS (comma-separated), GKT_CLOUD_MAX_MODEL_LEN,
    GKT_CLOUD_KV_CACHE_GIB, GKT_CLOUD_OUTPUT_USD_PER_MILLION, ...: docs/reference/configuration.md lists all of them.

    With --ray, Ray Serve listens, and each replica is a process with an engine of its own: `--replicas 2`, or `--replicas 1:4`
    for a number that follows the load. The command starts a Ray of its own, or joins the one at RAY_ADDRESS.
    docs/how-to/scaling.md describes this, and clouds on several machines.

    Example: GKT_CLOUD_KEYS=$(openssl rand -hex 24) gkt cloud --host 0.0.0.0
    """
    override(
        {
            "GKT_CLOUD_MODEL": model,
            "GKT_CLOUD_HOST": host,
            "GKT_CLOUD_PORT": port,
            "GKT_CLOUD_LOG_LEVEL": log_level,
        }
    )
    from cloud_teacher.config.settings import CloudSettings
    from cloud_teacher.ray_serve.replicas import Replicas, check_fields
    from cloud_teacher.teachers.factory import local_model_name
    from shared.server.settings import read_settings

    settings = read_settings(CloudSettings)
    if replicas and not ray:
        raise ConfigurationError("--replicas: requires --ray")
    wanted = Replicas.parse(replicas or "1")
    if ray:
        need_ray()
        check_fields(settings, wanted, machines=False)
    model_here = local_model_name(settings)
    if model_here:
        need_cloud_engine()
    free_port(settings.host, settings.port, option="--port")
    if settings.metrics_port:
        free_port(settings.host, settings.metrics_port, option="GKT_CLOUD_METRICS_PORT")
    leave_on_sigterm()  # during the download; later the service handles signals itself

    from cloud_teacher.model_files.conversion import ensure_folder
    from gkt.commands.models import shown_progress

    if model_here:
        ensure_folder(model_here, progress=shown_progress())
    if ray:
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray reads this at import; by default it drops repeated lines
        from gkt.local.ray_cluster import serve_here

        raise typer.Exit(serve_here(settings, wanted))
    from cloud_teacher.__main__ import run

    run()
