// Follows a run while it works, by server-sent events. Each event is the whole state, so that nothing is lost with a connection.
(function () {
  var box = document.getElementById("live");
  if (!box) return;
  var words = JSON.parse(box.dataset.words), notes = JSON.parse(box.dataset.notes);
  var lefts = JSON.parse(box.dataset.lefts), waits = JSON.parse(box.dataset.waits);
  var source = null, failures = 0, hiddenAt = 0, opened = performance.now(), latest = null, latestAt = 0;
  function part(name) { return box.querySelector('[data-live="' + name + '"]'); }
  function say(name, text) { if (part(name).textContent !== text) part(name).textContent = text; }
  function fill(text, values) { return text.replace(/\{(\w+)\}/g, function (_, name) { return values[name]; }); }

  function stage(run) {
    if (run.cancel_requested) return "stopping";
    if (run.state === "queued") return run.attempt > 0 ? "again" : "waiting";
    return run.cells_total ? "working" : "starting";
  }
  // As catalog.wording.left and catalog.wording.waits choose.
  function left(seconds) {
    if (seconds === null || seconds === undefined || seconds <= 0) return "";
    if (seconds < 50) return lefts.soon;
    var minutes = Math.max(1, Math.round(seconds / 60)), hours = Math.round(seconds / 3600);
    if (minutes < 60) return minutes === 1 ? lefts.minute : fill(lefts.minutes, { count: minutes });
    return hours === 1 ? lefts.hour : fill(lefts.hours, { count: hours });
  }
  function waiting(run) {
    var given = run.waits, said = [];
    if (!given || Number(box.dataset.waited) + (performance.now() - opened) / 1000 < Number(box.dataset.long)) return "";
    if (given.running >= given.limit) said.push(given.running === 1 ? waits.full_one : fill(waits.full, given));
    if (given.ahead === 1) said.push(waits.ahead_one);
    else if (given.ahead) said.push(fill(waits.ahead, given));
    else if (given.ahead === 0) said.push(waits.next);
    return said.join(" ");
  }

  // What changes as time goes, between two events too.
  function tick() {
    if (!latest) return;
    var seconds = latest.seconds_left === null ? null : latest.seconds_left - (performance.now() - latestAt) / 1000;
    say("left", latest.state === "running" ? left(seconds) : "");
    say("waits", waiting(latest));
    if (part("quotas")) part("quotas").hidden = !part("waits").textContent;
  }

  function show(run) {
    latest = run;
    latestAt = performance.now();
    say("state", words[run.state] || run.state);
    say("note", notes[stage(run)]);
    var progress = part("progress");
    if (run.cells_total) {
      progress.max = run.cells_total;
      progress.value = run.cells_done;
      say("step", fill(box.dataset.step, { done: run.cells_done, total: run.cells_total }));
    } else {
      progress.removeAttribute("value");
      say("step", "");
    }
    tick();
    part("tailbox").hidden = !run.tail;
    var tail = part("tail"), atEnd = tail.scrollTop + tail.clientHeight >= tail.scrollHeight - 4;
    say("tail", run.tail || "");
    if (atEnd) tail.scrollTop = tail.scrollHeight;
    var cancel = part("cancel");
    if (cancel) cancel.hidden = Boolean(run.cancel_requested);
    if (run.state !== "queued" && run.state !== "running") {
      source.close();
      window.location.reload();
    }
  }

  function open() {
    if (source) source.close();
    source = new EventSource(box.dataset.events);
    source.addEventListener("run", function (event) {
      failures = 0;
      show(JSON.parse(event.data));
    });
    source.addEventListener("notices", function (event) {
      document.dispatchEvent(new CustomEvent("pr:unread", { detail: JSON.parse(event.data).unread }));
    });
    source.onerror = function () {
      say("note", box.dataset.lost);
      // The browser tries again by itself, unless it was refused.
      if (this.readyState === EventSource.CLOSED && this === source) {
        failures += 1;
        setTimeout(refused, Math.min(30000, 2000 * failures));
      }
    };
  }
  // The lab may be starting again, or the session has ended: then the page itself finds out. A page that cannot be had now is left as it is.
  function refused() {
    fetch(box.dataset.health, { cache: "no-store", credentials: "omit" }).then(function (answer) {
      if (answer.ok && failures > 2) window.location.reload();
      else open();
    }, open);
  }

  // A machine that has slept may hold a connection that is long dead.
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) hiddenAt = performance.now();
    else if (performance.now() - hiddenAt > 30000) open();
  });
  window.addEventListener("online", open);
  setInterval(tick, 5000);
  open();
})();
