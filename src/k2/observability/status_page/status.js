"use strict";
(() => {
  const SILENT_MS = 4000, RETRY_MS = 1500, FILTER_FROM = 9;
  const $ = (id) => document.getElementById(id);
  const whole = new Intl.NumberFormat("en-US");
  const SIGN = { good: "✓", warn: "▲", bad: "✕", unknown: "…" };

  // Small words for numbers.
  const count = (n) => (n == null ? "–" : whole.format(n));
  const span = (s) => {
    if (s == null) return "–";
    if (s < 10) return s.toFixed(1) + " s";
    if (s < 120) return Math.round(s) + " s";
    if (s < 7200) return Math.round(s / 60) + " min";
    return s < 172800 ? (s / 3600).toFixed(1) + " h" : Math.round(s / 86400) + " d";
  };
  const ms = (s) => (s == null ? "–" : s < 1 ? (s * 1000).toFixed(s < 0.01 ? 1 : 0) + " ms" : s.toFixed(2) + " s");
  const mb = (bytes) => (bytes / 1048576).toFixed(0) + " MB";
  const clock = (date) => date.toLocaleTimeString("en-GB");
  const plural = (n, word) => count(n) + " " + word + (n === 1 ? "" : "s");

  // Touch the page only where something changed.
  const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
  const attribute = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };
  const make = (tag, name, value) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (value !== undefined) node.textContent = value;
    return node;
  };
  const rows = (body, keys, build) => {
    const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
    for (const [key, row] of known) if (!keys.includes(key)) { row.remove(); known.delete(key); }
    keys.forEach((key, place) => {
      let row = known.get(key);
      if (!row) { row = build(key); row.dataset.key = key; known.set(key, row); }
      if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null);
    });
    return known;
  };
  const cells = (row, values) => values.forEach(([value, name], place) => {
    const cell = row.children[place];
    text(cell, value);
    if (name !== undefined && cell.className !== name) cell.className = name;
  });
  const line = (names) => () => { const row = make("tr"); names.forEach((name) => row.append(make("td", name))); return row; };
  const facts = (list, pairs) => {
    const shown = pairs.filter(Boolean);
    const known = rows(list, shown.flatMap(([name]) => [name, name + "="]), (key) => make(key.endsWith("=") ? "dd" : "dt"));
    for (const [name, value, level] of shown) {
      text(known.get(name), name);
      const cell = known.get(name + "=");
      text(cell, value);
      cell.className = level || "";
    }
  };

  const levelOf = (status) => ({ healthy: "good", degraded: "warn", unhealthy: "bad" })[status];
  const verdict = (level, headline, summary) => {
    attribute($("verdict"), "data-level", level);
    text($("sign"), SIGN[level]);
    text($("headline"), headline);
    text($("summary"), summary);
    document.title = SIGN[level] + " k2: " + headline;
  };
  // Heard, not seen: only what changes in kind, not each second's numbers.
  const announce = (words) => text($("announce"), words);
  const problems = (found) => {
    const body = $("problems");
    const known = rows(body, found.map((one, place) => one.what + place), () => {
      const item = make("li");
      item.append(make("b"), make("span"));
      return item;
    });
    found.forEach((one, place) => {
      const item = known.get(one.what + place);
      text(item.children[0], one.level === "bad" ? SIGN.bad + " wrong" : SIGN.warn + " watch");
      item.children[0].className = one.level;
      text(item.children[1], one.text);
    });
  };

  const roleOf = (h) => {
    if (h.phase !== "recording") return h.phase;
    const roles = [...new Set(h.shards.map((one) => one.role.replace("_", " ")))];
    return h.role === "observer" ? "observer" : roles.join(" and ");
  };
  const head = (h) => {
    const bad = h.problems.filter((one) => one.level === "bad").length;
    const rate = h.tapes.reduce((sum, one) => sum + one.rate_per_s, 0);
    const level = levelOf(h.status);
    const worst = h.problems[0];
    const headline = level === "good" ? "Recording, all is well"
      : level === "bad" ? worst.text + (bad > 1 ? ` And ${bad - 1} more.` : "")
      : `Recording, with ${plural(h.problems.length, "thing")} to watch`;
    announce(level + ": " + (h.problems.map((one) => one.what.replace(/_/g, " ")).join(", ") || "all is well"));
    verdict(level, headline, [roleOf(h), plural(h.symbols.length, "symbol"), rate.toFixed(1) + " trades/s", h.connection_state.toLowerCase(), "up " + span(h.uptime_seconds)].filter(Boolean).join(" · "));
    text($("where"), `${h.stream} · ${h.environment === "simulated" ? "INVENTED trades (built-in exchange)" : h.environment}`);
    text($("version"), "k2 " + h.version);
    problems(h.problems);
  };

  const legs = (h) => {
    const firsts = h.legs.reduce((sum, one) => sum + one.first_copies, 0);
    const known = rows($("legs").tBodies[0], h.legs.map((one) => one.leg), line(["", "", "n", "n", "n"]));
    for (const one of h.legs) {
      const state = one.state === "waiting" ? `✕ again in ${span(one.retry_in_s)}` : one.state === "connecting" ? "… connecting" : one.state === "rotating" ? "⇄ rotating" : "✓ live";
      const share = firsts ? (100 * one.first_copies / firsts).toFixed(0) + " %" : "–";
      cells(known.get(one.leg), [[one.leg], [state, one.live ? "" : "warn"], [one.live ? span(one.age_s) : "–"], [ms(one.lag_s)], [share]]);
    }
    const next = h.rotation;
    text($("rotation"), next.under_way.length ? `Being replaced now: leg ${next.under_way.join(", ")}` : next.leg ? `Next rotation: leg ${next.leg} in ${span(next.in_s)}` : "No connection to rotate.");
    text($("latency"), latency(h.latency));
  };
  const latency = (l) => {
    if (l.exchange_to_us_s == null) return "";
    const clock = l.clock_offset_s == null ? "the clocks were not compared yet"
      : `our clock is ${ms(Math.abs(l.clock_offset_s))} ${l.clock_offset_s < 0 ? "behind" : "ahead of"} theirs, ± ${ms(l.clock_uncertainty_s)}`;
    return `Exchange to us: ${ms(l.exchange_to_us_s)} by the two clocks; ${clock}. Us to Kafka: ${l.to_commit_s == null ? "nothing yet" : ms(l.to_commit_s)}.`;
  };
  const dependency = (one) => one.reachable === null ? ["not looked yet", "quiet"] : one.reachable ? ["✓ answers", ""] : [`✕ away for ${span(one.for_s)}`, "bad"];
  const kafka = (h) => {
    const [state, level] = dependency(h.kafka), [registry, registryLevel] = dependency(h.schema_registry);
    facts($("kafka"), [
      ["Broker", state, level],
      ["At", h.kafka.at],
      ["Commit takes", h.commits.mean_s == null ? "none yet" : ms(h.commits.mean_s)],
      h.commits.p99_s != null && ["99 % of them", "≤ " + ms(h.commits.p99_s)],
      ["Registry", registry, registryLevel && registryLevel === "bad" ? "warn" : registryLevel],
    ]);
  };
  const lake = (h) => {
    const found = h.lake, archive = found && found.archive;
    if (!archive) {
      const state = !found ? "not looked for" : found.answered ? `✕ silent for ${span(found.for_s)}` : found.answers === null ? "not looked yet" : "not on this machine";
      facts($("lake"), [["Archive", state, found && found.answered ? "warn" : "quiet"], found && ["Looked at", found.at]]);
      return;
    }
    const ages = archive.tables.map((one) => one.last_commit_age_s).filter((age) => age != null);
    const lag = archive.topics.reduce((sum, one) => sum + one.lag, 0);
    const trades = archive.tables.find((one) => one.table === "trades");
    facts($("lake"), [
      ["Archive", { healthy: "✓ well", degraded: "▲ to watch", unhealthy: "✕ wrong" }[archive.status], archive.status === "healthy" ? "" : "warn"],
      ["Queryable after", archive.freshness_s == null ? "–" : span(archive.freshness_s)],
      archive.freshness_p99_s != null && ["99 % of rows", "≤ " + span(archive.freshness_p99_s)],
      ["Last commit", ages.length ? span(Math.min(...ages)) + " ago" : "none yet"],
      ["Behind Kafka", plural(lag, "record")],
      trades && ["Rows since start", count(trades.rows)],
    ]);
  };
  const memory = (h) => {
    const found = h.memory, points = found.trend_bytes;
    facts($("memory"), [
      ["In use", mb(found.rss_bytes)],
      ["Leak score", found.leak_score.toFixed(2) + (found.leak_score > 0.8 ? " ▲ leaks" : found.leak_score >= 0.5 ? " ▲ grows" : " ✓ steady"), found.leak_score >= 0.5 ? "warn" : ""],
    ]);
    if (points.length < 2) return;
    const low = Math.min(...points), high = Math.max(...points), room = Math.max(high - low, 4 * 1048576);
    const middle = (high + low) / 2;
    const line = points.map((bytes, place) => `${(240 * place / (points.length - 1)).toFixed(1)},${(22 - 38 * (bytes - middle) / room).toFixed(1)}`);
    attribute($("trend").firstElementChild, "points", line.join(" "));
    const note = `${mb(low)} to ${mb(high)} in the last ${span(found.every_s * (points.length - 1))}`;
    text($("trend-note"), note);
    attribute($("trend"), "aria-label", "Memory: " + note);
  };
  const shards = (h) => {
    const known = rows($("shards").tBodies[0], h.shards.map((one) => String(one.shard)), line(["", "", "n", "n"]));
    for (const one of h.shards) {
      const seen = one.role === "writer" ? one.last_commit_age_s : one.last_news_age_s;
      cells(known.get(String(one.shard)), [[String(one.shard)], [one.role === "writer" ? "✓ writes" : one.role === "standby" ? "stands by" : "⇄ takes over"], [one.role === "writer" ? count(one.pending) : "–"], [seen == null ? "–" : span(seen) + " ago"]]);
    }
    const took = h.shards.map((one) => one.last_takeover).filter(Boolean).sort().pop();
    text($("process"), `${h.role}, ${h.member ? "in" : "not in"} the lease group${took ? "; took over " + took.slice(0, 19).replace("T", " ") + " UTC" : ""}`);
  };

  const tapeRow = (symbol) => {
    const row = make("tr"), name = make("th"), button = make("button", "", symbol);
    name.scope = "row";
    button.type = "button";
    attribute(button, "aria-expanded", "false");
    button.addEventListener("click", () => {
      attribute(button, "aria-expanded", button.getAttribute("aria-expanded") === "true" ? "false" : "true");
      if (last) tapes(last);
    });
    name.append(button);
    row.append(name);
    for (const kind of ["n", "n opt", "n", "n narrow", "n opt", "bar-cell", ""]) row.append(make("td", kind));
    const bar = make("div", "bar");
    attribute(bar, "role", "img");
    row.children[6].append(bar);
    return row;
  };
  const moreRow = () => {
    const row = make("tr", "more"), cell = make("td");
    cell.colSpan = 8;
    cell.append(make("dl"));
    row.append(cell);
    return row;
  };
  const bar = (node, tape) => {
    const known = rows(node, tape.recent.map((one, place) => place + one.part), (key) => make("span", key.replace(/^\d+/, "")));
    tape.recent.forEach((one, place) => { known.get(place + one.part).style.flexGrow = String(one.ids); });
    attribute(node, "aria-label", tape.recent.length ? tape.recent.map((one) => `${count(one.ids)} ${one.part}`).join(", ") : "nothing yet");
  };
  const stateOf = (tape) => {
    if (tape.hole) return [`✕ ${count(tape.hole.last_id - tape.hole.first_id + 1)} missing, ${tape.hole.healing ? "healing" : "waits"} ${span(tape.hole.open_s)}`, "bad"];
    if (tape.silent) return ["▲ silent", "warn"];
    if (tape.open_gap_ids) return [`▲ ${count(tape.open_gap_ids)} declared`, "warn"];
    return tape.next_id === null ? ["… no trade yet", "quiet"] : ["✓ whole", "fine"];
  };
  const tapes = (h) => {
    const wanted = $("filter").value.toUpperCase();
    const shown = h.tapes.filter((one) => one.symbol.toUpperCase().includes(wanted));
    const body = $("tapes").tBodies[0];
    const open = new Set([...body.querySelectorAll("button[aria-expanded=true]")].map((one) => one.textContent));
    const keys = shown.flatMap((one) => (open.has(one.symbol) ? [one.symbol, one.symbol + " more"] : [one.symbol]));
    const known = rows(body, keys, (key) => (key.endsWith(" more") ? moreRow() : tapeRow(key)));
    for (const one of shown) {
      const row = known.get(one.symbol), [state, level] = stateOf(one);
      text(row.children[1], one.last_price || "–");
      text(row.children[2], one.last_quantity ? `${one.last_side === "SELL" ? "sold" : "bought"} ${one.last_quantity}` : "–");
      text(row.children[3], one.rate_per_s.toFixed(1));
      text(row.children[4], one.last_trade_ts_us == null ? "–" : span(one.silent_s));
      text(row.children[5], one.last_id == null ? "–" : String(one.last_id));
      bar(row.children[6].firstElementChild, one);
      text(row.children[7], state);
      row.children[7].className = level;
      const more = known.get(one.symbol + " more");
      if (more) details(more.querySelector("dl"), one);
    }
    $("no-tapes").hidden = shown.length > 0;
    $("filter-label").hidden = h.tapes.length < FILTER_FROM;
  };
  const details = (list, one) => {
    const pairs = [
      ["Last trade", one.last_price ? `${one.last_side === "SELL" ? "sold" : "bought"} ${one.last_quantity} at ${one.last_price}` : "none heard"],
      ["Heard", one.last_trade_ts_us == null ? "–" : span(one.silent_s) + " ago"],
      ["First id of the tape", one.first_id == null ? "–" : String(one.first_id)],
      ["Last id in Kafka", one.last_id == null ? "–" : String(one.last_id)],
      ["Next id here", one.next_id == null ? "–" : String(one.next_id)],
      ["Silence that is usual", one.silent_allowed_s == null ? "not known yet" : "up to " + span(one.silent_allowed_s)],
      ["Missing now", one.hole ? `${one.hole.first_id} to ${one.hole.last_id}, ${count(one.hole.held)} trades wait` : "none"],
      ["Declared, still looked for", count(one.open_gap_ids)],
      ["Shard", String(one.shard)],
    ];
    const known = rows(list, pairs.map(([name]) => name), (name) => { const pair = make("div"); pair.append(make("dt", "", name), make("dd")); return pair; });
    for (const [name, value] of pairs) text(known.get(name).children[1], value);
  };

  let last = null, lastAt = 0, goneSince = null, held = false, source = null;
  const show = (h) => { head(h); legs(h); kafka(h); lake(h); memory(h); shards(h); tapes(h); };
  const gone = () => {
    if (goneSince === null) goneSince = new Date(lastAt || Date.now());
    document.body.classList.add("gone");
    problems([]);
    announce("bad: service not answering");
    const since = Math.max(0, (Date.now() - goneSince.getTime()) / 1000);
    verdict("bad", `Service not answering since ${clock(goneSince)}`, `For ${span(since)}. ${last ? "Below are the last values it sent. " : ""}Trying again. Is k2 stream starting, or down?`);
  };
  const listen = () => {
    source = new EventSource("/events");
    source.onmessage = (event) => {
      last = JSON.parse(event.data);
      lastAt = Date.now();
      goneSince = null;
      document.body.classList.remove("gone");
      if (!held) show(last);
    };
    source.onerror = () => { gone(); if (source.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS); };
  };
  setInterval(() => { if (goneSince !== null || (lastAt && Date.now() - lastAt > SILENT_MS)) gone(); }, 1000);
  $("hold").addEventListener("click", () => {
    held = !held;
    attribute($("hold"), "aria-pressed", String(held));
    text($("hold"), held ? "Held: go on" : "Hold still");
    if (!held && last) show(last);
  });
  $("filter").addEventListener("input", () => { if (last) tapes(last); });
  listen();
})();
