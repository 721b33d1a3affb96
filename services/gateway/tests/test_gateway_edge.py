"""What happens at the edge: keys, quotas, limits, origins, versions, headers."""

import asyncio
import hashlib

import httpx2
import pytest

from services.chassis.testing import running
from services.gateway.api import create_app
from services.gateway.keys import KeyRing, key_hash, main, parse_keys
from services.gateway.quotas import Quotas, caller_of_address

KEY = "rag_test-key"
QUESTION = {"question": "When does it open?"}


def client_from(app, address):
    transport = httpx2.ASGITransport(app, client=(address, 4000))
    return httpx2.AsyncClient(transport=transport, base_url="http://service")


@pytest.fixture
async def keyed(make_settings):
    settings = make_settings(api_keys=f"ana:{key_hash(KEY)}")
    async with running(create_app(settings)) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/v1/jobs/j1", "/v1/nothing"])
async def test_without_a_key_nothing_under_v1_answers(keyed, path):
    response = await keyed.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["type"] == "urn:rag-workshop:problem:api-key-needed"


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}]
)
async def test_a_bearer_key_or_an_x_api_key_opens(keyed, headers):
    assert (await keyed.get("/v1/models", headers=headers)).status_code == 200
    assert (await keyed.get("/v1/models", headers={"x-api-key": KEY})).status_code == 200


async def test_a_wrong_key_is_told_apart_from_a_missing_one(keyed):
    response = await keyed.get("/v1/models", headers={"x-api-key": KEY + "x"})
    assert response.status_code == 401
    assert "invalid_token" in response.headers["www-authenticate"]


async def test_the_page_and_health_need_no_key(keyed):
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert (await keyed.get(path)).status_code == 200, path


async def test_metrics_need_a_key_from_elsewhere(make_settings):
    app = create_app(make_settings(api_keys=f"ana:{key_hash(KEY)}"))
    async with running(app) as near, client_from(app, "203.0.113.9") as far:
        assert (await near.get("/metrics")).status_code == 200
        assert (await far.get("/metrics")).status_code == 401
        assert (await far.get("/metrics", headers={"x-api-key": KEY})).status_code == 200


async def test_without_keys_only_this_machine_may_call(make_settings):
    app = create_app(make_settings())
    async with running(app) as near, client_from(app, "203.0.113.9") as far:
        assert (await near.get("/v1/models")).status_code == 200
        refused = await far.get("/v1/models")
        assert refused.status_code == 401
        assert "only this machine" in refused.json()["detail"]


async def test_a_setting_opens_it_to_anyone(make_settings):
    app = create_app(make_settings(anonymous="anyone"))
    async with running(app), client_from(app, "203.0.113.9") as far:
        assert (await far.get("/v1/models")).status_code == 200


async def test_without_keys_a_rebound_host_name_is_refused(client):
    response = await client.get("/v1/models", headers={"host": "evil.example:8000"})
    assert response.status_code == 403
    assert response.json()["type"].endswith(":host-not-allowed")


async def test_without_keys_the_page_of_another_site_may_not_post(client, behind):
    response = await client.post(
        "/v1/answer", json=QUESTION, headers={"origin": "https://evil.example"}
    )
    assert response.status_code == 403
    assert behind.asked == {}
    own = await client.post("/v1/answer", json=QUESTION, headers={"origin": "http://service"})
    assert own.status_code == 200


async def test_cors_is_off_until_a_site_is_named(client, make_settings):
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    response = await client.options("/v1/answer", headers=preflight)
    assert "access-control-allow-origin" not in response.headers
    async with running(create_app(make_settings(cors_origins=["https://app.example"]))) as named:
        response = await named.options("/v1/answer", headers=preflight)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        answer = await named.post(
            "/v1/answer", json=QUESTION, headers={"origin": "https://app.example"}
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


async def test_the_rate_limit_counts_each_key_by_itself(make_settings):
    keys = f"ana:{key_hash('a')} bob:{key_hash('b')}"
    settings = make_settings(api_keys=keys, rate_limit="2/minute")
    async with running(create_app(settings)) as client:
        statuses = [
            (await client.get("/v1/models", headers={"x-api-key": "a"})).status_code
            for _ in range(3)
        ]
        refused = await client.get("/v1/models", headers={"x-api-key": "a"})
        other = await client.get("/v1/models", headers={"x-api-key": "b"})
    assert statuses == [200, 200, 429]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"rate";q=2;w=60'
    assert refused.headers["ratelimit"].startswith('"rate";r=0;t=')
    assert other.status_code == 200
    assert '"rate";r=1;t=' in other.headers["ratelimit"]


async def test_the_quota_of_the_day_is_a_limit_of_its_own(make_settings):
    settings = make_settings(rate_limit="off", daily_quota="1/day")
    async with running(create_app(settings)) as client:
        assert (await client.get("/v1/models")).status_code == 200
        refused = await client.get("/v1/models")
    assert refused.status_code == 429
    assert refused.json()["type"].endswith(":quota-used-up")
    assert int(refused.headers["retry-after"]) > 3600


async def test_both_limits_can_be_off(make_settings):
    async with running(create_app(make_settings(rate_limit="off", daily_quota="off"))) as client:
        response = await client.get("/v1/models")
    assert response.status_code == 200
    assert "ratelimit" not in response.headers


async def test_health_and_the_page_are_not_counted(make_settings):
    async with running(create_app(make_settings(rate_limit="1/minute"))) as client:
        for _ in range(3):
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200


async def test_a_lost_counter_store_does_not_close_the_edge(monkeypatch):
    quotas = Quotas("1/minute", "off", "memory://")
    quotas._network = True

    def broken(*_):
        raise ConnectionError("gone")

    monkeypatch.setattr(quotas._limits[0][2], "hit", broken)
    assert await quotas.take("key:ana") == (True, [])


async def test_counting_starts_no_thread_a_request(monkeypatch):
    quotas = Quotas("1000/minute", "1000/day", "memory://")
    started = []
    monkeypatch.setattr("threading.Thread.start", lambda thread: started.append(thread))
    for _ in range(20):
        await quotas.take("key:ana")
    assert len(started) <= 1


def test_an_ipv6_caller_is_counted_by_its_network():
    one, two = caller_of_address("2001:db8::1"), caller_of_address("2001:db8::ffff:2")
    assert one == two == "address:2001:0db8:0000:0000::/64"
    assert caller_of_address("2001:db8:1::1") != one
    assert caller_of_address("::ffff:192.0.2.1") == caller_of_address("192.0.2.1")


@pytest.mark.parametrize("path", ["/v2/answer", "/v0/search", "/v17"])
async def test_an_unknown_version_names_the_known_one(client, path):
    response = await client.post(path, json={})
    assert response.status_code == 404
    assert response.json()["type"].endswith(":unknown-version")
    assert "/v1" in response.json()["detail"]


async def test_every_answer_carries_the_security_headers(client):
    for path in ("/", "/v1/models", "/v1/nothing", "/static/app.js", "/docs"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy, path
        scripts = policy.partition("script-src")[2].partition(";")[0]
        assert "unsafe" not in scripts, path


async def test_the_policy_of_the_docs_allows_exactly_its_own_inline_script(client):
    import base64

    page = await client.get("/docs")
    script = page.text.partition("<script>")[2].partition("</script>")[0]
    assert "SwaggerUIBundle(" in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


async def test_answers_of_the_api_are_not_cached(client):
    assert (await client.get("/v1/models")).headers["cache-control"] == "no-store"


async def test_options_names_the_methods_and_head_answers_without_a_body(client):
    response = await client.options("/v1/documents/a/b")
    assert response.status_code == 204
    assert response.headers["allow"] == "DELETE, GET, HEAD"
    assert (await client.options("/v1/nothing")).status_code == 404
    head = await client.head("/v1/models")
    assert head.status_code == 200
    assert head.content == b""
    assert (await client.head("/")).status_code == 200
    assert (await client.head("/v1/answer")).status_code == 405


async def test_a_large_body_is_refused_by_its_announced_size(client, behind):
    response = await client.post("/v1/answer", content=b"x" * 300_000)
    assert response.status_code == 413
    assert response.json()["type"].endswith(":body-too-large")
    assert behind.asked == {}


async def test_a_large_body_is_refused_while_it_arrives(client, behind):
    read = 0

    async def body():
        nonlocal read
        for _ in range(1000):
            read += 10_000
            yield b"x" * 10_000

    response = await client.post(
        "/v1/answer", content=body(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413
    assert read < 600_000
    assert behind.asked == {}


async def test_a_body_that_stops_arriving_is_given_up(make_settings):
    async def body():
        yield b'{"question": "'
        await asyncio.sleep(20)
        yield b'x"}'

    async with running(create_app(make_settings(body_pause=0.1))) as client:
        async with asyncio.timeout(5):
            response = await client.post(
                "/v1/answer", content=body(), headers={"content-type": "application/json"}
            )
    assert response.status_code == 408
    assert response.json()["type"].endswith(":body-too-slow")


async def test_a_body_that_trickles_is_given_up(make_settings):
    async def body():
        for _ in range(1000):
            yield b" "
            await asyncio.sleep(0.02)

    async with running(create_app(make_settings(body_time=0.2))) as client:
        async with asyncio.timeout(5):
            response = await client.post(
                "/v1/answer", content=body(), headers={"content-type": "application/json"}
            )
    assert response.status_code == 408


async def test_inner_headers_of_the_caller_stay_outside(client, behind):
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    await client.post(
        "/v1/answer",
        json=QUESTION,
        headers={
            "traceparent": trace,
            "x-request-id": "mine-1",
            "x-deadline-ms": "999999999",
            "x-internal-user": "root",
            "authorization": "Bearer secret",
            "x-api-key": "secret",
            "cookie": "a=b",
        },
    )
    inner = {name.lower(): value for name, value in behind.headers["/v1/answer"].items()}
    assert inner["x-request-id"] == "mine-1"
    assert inner["traceparent"].startswith("00-" + "a" * 32)
    assert int(inner["x-deadline-ms"]) <= 60_000
    assert not {"x-internal-user", "authorization", "x-api-key", "cookie"} & set(inner)


async def test_refusals_are_counted_by_reason(keyed):
    await keyed.get("/v1/models")
    metrics = (await keyed.get("/metrics")).text
    assert 'gateway_refused_total{reason="api-key-needed"} 1.0' in metrics


def test_keys_are_read_from_text_with_comments():
    a, b = key_hash("a"), key_hash("b")
    assert parse_keys(f"# people\nana:{a}\nbob:{b}  # until May\n") == {"ana": a, "bob": b}
    assert parse_keys(f"ana:{a}, bob:{b}") == {"ana": a, "bob": b}
    assert parse_keys("") == {}


@pytest.mark.parametrize(
    "text", ["ana", "ana:123", "ana:" + "G" * 64, f"a:{'0' * 64} a:{'0' * 64}"]
)
def test_a_wrong_key_entry_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
        parse_keys(text)
    assert "0000" not in str(error.value)


def test_the_key_file_is_read_again_when_it_changes_and_survives_a_slip(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"ana:{key_hash('a')}\n")
    ring = KeyRing("", file, refresh=0.0)
    assert ring.name_of("a") == "ana"
    file.write_text(f"ana:{key_hash('a')}\nbob:{key_hash('b')}\n")
    assert ring.name_of("b") == "bob"
    file.write_text("nonsense")
    assert ring.name_of("b") == "bob"
    assert ring.problem
    file.write_text(f"bob:{key_hash('b')}\n")
    assert ring.name_of("a") is None


def test_an_empty_key_file_locks_everybody_out(tmp_path):
    file = tmp_path / "keys"
    file.write_text("")
    ring = KeyRing("", file)
    assert ring.configured
    assert ring.name_of("") is None


def test_the_command_prints_a_key_that_its_line_opens(capsys):
    assert main(["new", "ana"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    key, line = first.split()[-1], second.split()[-1]
    assert KeyRing(line, None).name_of(key) == "ana"
    assert main(["new"]) == 2
    assert "Usage" in capsys.readouterr().err
