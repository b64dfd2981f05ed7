// The Hub's own pages: language, starting and stopping desks, access tokens.
document.addEventListener("DOMContentLoaded", function () {
  var body = document.body.dataset;

  // The choice is kept for all pages of the lab, and the rest of the address stays as it is.
  document.querySelectorAll("[data-lang]").forEach(function (link) {
    link.addEventListener("click", function (event) {
      event.preventDefault();
      document.cookie = "proverom_lang=" + link.dataset.lang + ";path=/;max-age=31536000;samesite=lax";
      var address = new URL(window.location.href);
      address.searchParams.set("lang", link.dataset.lang);
      window.location.assign(address);
    });
  });

  function api(method, path, content) {
    return fetch(body.base + "api/" + path, {
      method: method,
      headers: { "Content-Type": "application/json", "X-XSRFToken": body.xsrf },
      body: content ? JSON.stringify(content) : undefined,
    }).then(function (answer) {
      if (!answer.ok) throw new Error(String(answer.status));
      return answer.status === 204 || method === "DELETE" ? null : answer.json();
    });
  }
  function say(element, text) {
    var message = document.createElement("p");
    message.className = "ds-validation-message";
    message.setAttribute("role", "alert");
    message.textContent = text;
    element.insertAdjacentElement("afterend", message);
  }

  document.querySelectorAll("[data-stop]").forEach(function (button) {
    button.addEventListener("click", function () {
      button.disabled = true;
      api("DELETE", "users/" + body.user + "/servers/" + button.dataset.stop).then(
        function () { window.location.reload(); },
        function () { button.disabled = false; say(button, button.dataset.failed); });
    });
  });

  var start = document.querySelector("[data-start-after]");
  if (start) setTimeout(function () { window.location.assign(start.href + window.location.hash); }, 1000 * Number(start.dataset.startAfter));

  var spawn = document.getElementById("spawn");
  if (spawn) {
    var source = new EventSource(spawn.dataset.progress);
    source.onmessage = function (event) {
      var said = JSON.parse(event.data);
      var text = said.message || "";
      if (said.progress !== undefined) document.getElementById("progress-bar").value = said.progress;
      if (text) {
        document.getElementById("progress-message").textContent = text;
        var line = document.createElement("li");
        line.textContent = text;
        document.getElementById("progress-log").appendChild(line);
      }
      if (said.ready) { source.close(); window.location.reload(); }
      if (said.failed) {
        source.close();
        document.title = spawn.dataset.failed;
        document.querySelector("h1").textContent = spawn.dataset.failed;
        document.getElementById("progress-message").setAttribute("role", "alert");
        document.getElementById("progress-details").open = true;
        document.getElementById("progress-bar").hidden = true;
      }
    };
  }

  var form = document.getElementById("request-token-form");
  if (form) form.addEventListener("submit", function (event) {
    event.preventDefault();
    var seconds = parseInt(document.getElementById("token-expiration-seconds").value, 10) || null;
    var wanted = { note: document.getElementById("token-note").value || "–" };
    if (seconds) wanted.expires_in = seconds;
    api("POST", "users/" + body.user + "/tokens", wanted).then(function (made) {
      document.getElementById("token-result").textContent = made.token;
      document.getElementById("token-area").hidden = false;
    }, function () { say(form, form.dataset.failed); });
  });
  document.querySelectorAll("[data-revoke]").forEach(function (button) {
    button.addEventListener("click", function () {
      button.disabled = true;
      api("DELETE", "users/" + body.user + "/tokens/" + button.dataset.revoke).then(
        function () { button.closest("tr").remove(); },
        function () { button.disabled = false; say(button, button.dataset.failed); });
    });
  });
});
