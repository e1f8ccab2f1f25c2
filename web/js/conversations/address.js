// The conversation that is shown stands in the address, so that Back and links lead to it.

/**
 * Keep the address up to date with the conversation, and follow it. Resolves when the one that it
 * names is shown. `view`: the window.
 */
export async function followAddress(chat, view) {
  const { location, history } = view;
  const named = () => decodeURIComponent(location.hash.slice(1));
  let shown = null; // id of the conversation; "" for an empty one

  function update({ turns, conversation }) {
    const id = turns.length > 0 ? conversation.id : "";
    if (id === shown) return;
    const change = shown === null ? "replaceState" : "pushState";
    shown = id;
    if (id !== named()) history[change](null, "", id ? `#${id}` : location.pathname);
  }

  async function go() {
    const id = named();
    if (id === shown) return;
    if (id === "") {
      shown = id;
      chat.clear();
    } else if (await chat.open(id)) shown = id;
    else history.replaceState(null, "", shown ? `#${shown}` : location.pathname);
  }

  view.addEventListener("popstate", go);
  // A link to another conversation than the one that this tab had.
  const linked = named();
  update(chat.state);
  chat.store.watch(update);
  if (linked !== "" && linked !== shown) {
    await chat.open(linked);
  }
}
