// The browser's IndexedDB as a place for conversations: short rows for the list, whole ones apart.
// A browser that forbids it (some private windows) gets a place that ends with the page.

const NAME = "pascal";
const VERSION = 1;
const ROWS = "rows"; // { id, title, named, createdAt, updatedAt, turns: count }
const WHOLE = "whole"; // the record

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Open the database; falls back to memory. `indexedDB`: the browser's, or null. */
export async function openDatabase(indexedDB) {
  try {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(ROWS, { keyPath: "id" });
      request.result.createObjectStore(WHOLE, { keyPath: "id" });
    };
    return new Database(await done(request));
  } catch (error) {
    console.warn("conversations end with this page:", error?.name ?? error);
    return new Memory();
  }
}

/** All methods return promises. A database that is full rejects with a DOMException. */
class Database {
  constructor(database) {
    this.database = database;
    this.lasting = true;
    // Another tab wants a newer form: do not stand in its way.
    database.onversionchange = () => database.close();
  }

  rows() {
    return done(this.database.transaction(ROWS).objectStore(ROWS).getAll());
  }

  get(id) {
    return done(this.database.transaction(WHOLE).objectStore(WHOLE).get(id));
  }

  /** Replace a record by `change(record or undefined)` in one transaction; null: delete it. */
  async update(id, change, rowOf) {
    const transaction = this.database.transaction([ROWS, WHOLE], "readwrite");
    const whole = transaction.objectStore(WHOLE);
    const rows = transaction.objectStore(ROWS);
    const finished = committed(transaction);
    const next = change(await done(whole.get(id)));
    if (next === null) {
      whole.delete(id);
      rows.delete(id);
    } else {
      whole.put(next);
      rows.put(rowOf(next));
    }
    await finished;
    return next;
  }

  /** Call `look(record)` for every record. */
  async each(look) {
    const request = this.database.transaction(WHOLE).objectStore(WHOLE).openCursor();
    await new Promise((resolve, reject) => {
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (cursor === null) {
          resolve();
          return;
        }
        look(cursor.value);
        cursor.continue();
      };
    });
  }
}

/** The same in memory. */
export class Memory {
  lasting = false;
  #whole = new Map();
  #rows = new Map();

  async rows() {
    return [...this.#rows.values()];
  }

  async get(id) {
    return this.#whole.get(id);
  }

  async update(id, change, rowOf) {
    const next = change(this.#whole.get(id));
    if (next === null) {
      this.#whole.delete(id);
      this.#rows.delete(id);
    } else {
      this.#whole.set(id, next);
      this.#rows.set(id, rowOf(next));
    }
    return next;
  }

  async each(look) {
    for (const record of this.#whole.values()) look(record);
  }
}
