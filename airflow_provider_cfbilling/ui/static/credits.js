// Shows what Airflow's server has drawn, and renews it each minute. React and the router are Airflow's own.
const { createElement, useEffect, useRef, useState } = globalThis.React;
const { useNavigate } = globalThis.ReactRouterDOM;
const FRAGMENT = new URL("../fragment", import.meta.url);
const SENTENCES = {
  401: "Your session has ended. Reload this page to log in again.",
  403: "You may not read connections, so there are no accounts to show. An admin of this Airflow can allow it.",
};

globalThis["AI Gateway credits"] = function CreditsPage() {
  const navigate = useNavigate();
  const root = useRef(null);
  const [html, setHtml] = useState("");
  const [notice, setNotice] = useState("Reading the accounts…");

  useEffect(() => {
    let [timer, loadedAt, latest] = [undefined, 0, 0];
    const load = async () => {
      clearTimeout(timer);
      if (document.hidden) return;
      timer = setTimeout(load, 60_000);
      const mine = ++latest; // an earlier one that ends later has nothing to say any more
      try {
        const response = await fetch(FRAGMENT, { cache: "no-store" });
        const text = response.ok ? await response.text() : "";
        if (mine !== latest) return;
        if (response.ok || SENTENCES[response.status]) setHtml(text);
        setNotice(response.ok ? "" : SENTENCES[response.status] ?? `Airflow responded with ${response.status}.`);
        if (response.ok) loadedAt = Date.now();
      } catch {
        if (mine === latest) setNotice("Airflow cannot be reached. What is shown was read before.");
      }
    };
    const showAges = () =>
      root.current?.querySelectorAll("[data-age]").forEach((element) => {
        const seconds = Math.round(Number(element.dataset.age) + (Date.now() - loadedAt) / 1000);
        element.textContent = seconds < 120 ? `Read ${seconds} s ago` : `Read ${Math.round(seconds / 60)} min ago`;
      });
    const clock = setInterval(showAges, 1000);
    document.addEventListener("visibilitychange", load);
    load();
    return () => {
      clearTimeout(timer);
      clearInterval(clock);
      document.removeEventListener("visibilitychange", load);
    };
  }, []);

  const follow = (event) => {
    const link = event.target.closest("a[data-route]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    navigate(link.dataset.route);
  };
  return createElement("div", { onClick: follow, ref: root, style: { height: "100%", overflowY: "auto", padding: 8 } },
    createElement("h1", { style: { fontSize: 20, fontWeight: 600, margin: "8px 0 16px" } }, "AI Gateway credits"),
    notice && createElement("p", { role: "status", style: { marginBottom: 16 } }, notice),
    createElement("div", { dangerouslySetInnerHTML: { __html: html } }));
};
