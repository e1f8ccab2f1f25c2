// What the page shows besides the place to write in: it comes last (main.js).

export { Conversations } from "./conversations/list.js";
export { SettingsDialog } from "./settings/dialog.js";
export { ReadingTest } from "./settings/reading_test.js";
export { Banners } from "./view/banners.js";
export { ContextMeter } from "./view/context_meter.js";
export { ShortcutList } from "./view/shortcut_list.js";
export { actionOf } from "./view/shortcuts.js";
export { Turn } from "./view/turn.js";
